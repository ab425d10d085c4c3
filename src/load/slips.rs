//! What people meant who wrote what is not YAML: guessed from the lines around the place where the parser gave up, which is often
//! one after the slip. Nothing is said where nothing is known.

use crate::diag::did_you_mean;

/// Lines that are looked at before the place; a quote that lacks its end is seldom further away.
const BEFORE: usize = 200;
/// Anchors that are looked at, and bytes of the name of one.
const ANCHORS: usize = 1000;
const LONGEST: usize = 64;

/// Returns what to do about an error of syntax at byte `at` of `text`.
pub(super) fn help(text: &str, at: usize) -> Option<String> {
    let at = (0..=at.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    let place = Place::new(text, at);
    page(text)
        .or_else(|| place.conflict())
        .or_else(|| place.blanks())
        .or_else(|| place.alias())
        .or_else(|| place.sign())
        .or_else(|| place.value_with_colon())
        .or_else(|| place.no_colon())
        .or_else(|| place.no_space())
        .or_else(|| place.quote())
        .or_else(|| place.bracket())
        .or_else(|| place.column())
}

fn page(text: &str) -> Option<String> {
    let is_page = text.trim_start().starts_with('<') && !text.trim_start().starts_with("<<");
    is_page.then(|| "this looks like a page of the web: look at what was downloaded".to_owned())
}

/// The place with the lines around it.
struct Place<'a> {
    text: &'a str,
    at: usize,
    /// Its line.
    line: &'a str,
    /// Lines before it that hold something, with their numbers.
    before: Vec<(usize, &'a str)>,
}

impl<'a> Place<'a> {
    fn new(text: &'a str, at: usize) -> Self {
        // The end of a file is said to be behind its last line.
        let at = if text[at..].trim().is_empty() { text.trim_end().len() } else { at };
        let start = text[..at].rfind('\n').map_or(0, |newline| newline + 1);
        let line = text[start..].lines().next().unwrap_or("");
        // The text before the line ends where a line ends.
        let above = &text[..start];
        let count = memchr::memchr_iter(b'\n', above.as_bytes()).count();
        let numbered = above.lines().rev().enumerate().map(|(back, line)| (count.saturating_sub(back), line));
        let mut before: Vec<_> = numbered.filter(|(_, line)| holds(line)).take(BEFORE).collect();
        before.reverse();
        Self { text, at, line, before }
    }

    fn previous(&self) -> &'a str {
        self.before.last().map_or("", |(_, line)| *line)
    }

    /// The lines that the parser may have stumbled over: the one of the place and the one before.
    fn both(&self) -> [&'a str; 2] {
        [self.line, self.previous()]
    }

    fn conflict(&self) -> Option<String> {
        let marks = ["<<<<<<<", "=======", ">>>>>>>"];
        let is_mark = |line: &str| marks.iter().any(|mark| line.starts_with(mark));
        let found = self.both().into_iter().any(is_mark) || self.text.lines().any(|line| line.starts_with(marks[0]));
        found.then(|| "these are marks of a merge conflict: keep one side, and take out the marks".to_owned())
    }

    fn blanks(&self) -> Option<String> {
        let of = |line: &str| line.chars().take_while(|c| c.is_whitespace()).collect::<String>();
        let wrong = self.both().into_iter().map(of).find_map(|blanks| blanks.chars().find(|c| *c != ' '))?;
        Some(match wrong {
            '\t' => "indent with spaces: YAML takes no tabs".to_owned(),
            other => format!(
                "indent with plain spaces, not with U+{:04X}, as text from pages of the web has it",
                u32::from(other)
            ),
        })
    }

    fn alias(&self) -> Option<String> {
        let named = |at: usize| {
            let rest = &self.text[at..];
            let ends = |(at, c): (usize, char)| (c.is_whitespace() || ",]}".contains(c) || at > LONGEST).then_some(at);
            &rest[..rest.char_indices().find_map(ends).unwrap_or(rest.len())]
        };
        let name = self.text[self.at..].starts_with('*').then(|| named(self.at + 1))?;
        let anchors = || self.text.match_indices('&').take(ANCHORS).map(|(at, _)| at + 1);
        if let Some(later) = anchors().find(|at| *at > self.at && named(*at) == name) {
            let line = self.text[..later].lines().count();
            return Some(format!("`&{name}` comes later, in line {line}: move it above this one"));
        }
        Some(match did_you_mean(name, anchors().filter(|at| *at < self.at).map(named)) {
            Some(meant) => format!("did you mean `*{meant}`?"),
            None if name.is_empty() => "a text that starts with `*` needs quotes".to_owned(),
            None => format!("nothing above is named `&{name}`; a text that starts with `*` needs quotes"),
        })
    }

    /// A text that starts with a sign of YAML's own.
    fn sign(&self) -> Option<String> {
        let rest = self.text[self.at..].lines().next()?;
        let sign = rest.chars().next().filter(|sign| "@`%&!|>*".contains(*sign))?;
        Some(format!("a text that starts with `{sign}` needs quotes: `'{}'`", rest.trim_end().replace('\'', "''")))
    }

    /// `MESSAGE: Hello: World`.
    fn value_with_colon(&self) -> Option<String> {
        let (_, value) = key_and_value(self.line)?;
        let is_plain = !value.starts_with(['"', '\'', '{', '[', '&', '*', '!', '|', '>']);
        let found = is_plain && (value.contains(": ") || value.ends_with(':'));
        found.then(|| format!("a text with `: ` in it needs quotes: `'{}'`", value.replace('\'', "''")))
    }

    /// A key without its colon makes text of the lines below it.
    fn no_colon(&self) -> Option<String> {
        let word = self.previous().trim();
        let is_word = !word.is_empty() && word.chars().all(|c| c.is_ascii_alphanumeric() || "_-.".contains(c));
        let below = indent(self.line) >= indent(self.previous());
        let number = self.before.last().map_or(0, |(number, _)| *number);
        let found = is_word && below && !word.starts_with('-');
        found.then(|| format!("a colon is missing after `{word}` in line {number}"))
    }

    /// `image:nginx`, `-"80:80"`.
    fn no_space(&self) -> Option<String> {
        let line = self.both().into_iter().map(str::trim).find(|line| {
            line.strip_prefix('-').is_some_and(|rest| rest.starts_with(['"', '\'']))
                || line
                    .split_once(':')
                    .is_some_and(|(key, rest)| is_key(key) && rest.starts_with(char::is_alphanumeric))
        })?;
        let sign = if line.starts_with('-') { '-' } else { ':' };
        Some(format!("a space is missing after `{sign}` in `{line}`"))
    }

    /// A quote without its end, or text behind one.
    fn quote(&self) -> Option<String> {
        if let Some((_, value)) = key_and_value(self.line).or_else(|| item(self.line).map(|value| ("", value)))
            && let Some(quote) = value.chars().next().filter(|quote| matches!(quote, '"' | '\''))
            && let Some(end) = value[1..].find(quote)
            && !value[end + 2..].trim_start().is_empty()
            && !value[end + 2..].trim_start().starts_with(['#', ',', ']', '}'])
        {
            let other = if quote == '"' { '\'' } else { '"' };
            return Some(format!(
                "the text ends with the second `{quote}`, and more follows: put the whole in `{other}`, or double the `'` in it"
            ));
        }
        let all = self.before.iter().copied().chain([(self.text[..self.at].lines().count().max(1), self.line)]);
        let (number, _) = all.into_iter().find(|(_, line)| starts_quote(line))?;
        Some(format!("the quote in line {number} has no end"))
    }

    /// A bracket without its counterpart.
    fn bracket(&self) -> Option<String> {
        let mut open: Vec<(char, usize)> = Vec::new();
        let lines = self.before.iter().copied().chain([(0, self.line)]);
        for (number, line) in lines {
            for c in bare(line) {
                match c {
                    '[' | '{' => open.push((c, number)),
                    ']' | '}' => drop(open.pop()),
                    _ => {}
                }
            }
        }
        let (sign, number) = *open.first()?;
        let close = if sign == '[' { ']' } else { '}' };
        Some(if number == 0 {
            format!("a text that starts with `{sign}` needs quotes; else `{close}` is missing")
        } else {
            format!("the `{sign}` in line {number} has no `{close}`")
        })
    }

    /// A line in a column in which none may stand.
    fn column(&self) -> Option<String> {
        let (here, before) = (indent(self.line), indent(self.previous()));
        let has_value = key_and_value(self.previous()).is_some_and(|(_, value)| !value.is_empty());
        if here > before && has_value {
            return Some(
                "this line stands deeper than the one before, which has a value already: align the two".to_owned(),
            );
        }
        let is_column = self.before.iter().any(|(_, line)| indent(line) == here);
        (here < before && !is_column)
            .then(|| "no line before stands in this column: align it with those that it belongs to".to_owned())
    }
}

/// Whether a line holds more than blanks and a comment.
fn holds(line: &str) -> bool {
    let line = line.trim();
    !line.is_empty() && !line.starts_with('#')
}

fn indent(line: &str) -> usize {
    line.chars().take_while(|c| *c == ' ').count()
}

fn item(line: &str) -> Option<&str> {
    line.trim().strip_prefix("- ").map(str::trim)
}

fn is_key(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || "_-.".contains(c))
}

/// Key and value of a line, which may be an item of a list.
fn key_and_value(line: &str) -> Option<(&str, &str)> {
    let line = item(line).unwrap_or(line.trim());
    let (key, value) = line.split_once(": ").or_else(|| line.strip_suffix(':').map(|key| (key, "")))?;
    Some((key, value.trim()))
}

/// Whether a quote starts in a line and does not end there.
fn starts_quote(line: &str) -> bool {
    let value = key_and_value(line).map(|(_, value)| value).or_else(|| item(line)).unwrap_or(line.trim());
    let value = value.trim_start_matches(['[', '{', ' ']);
    let Some(quote) = value.chars().next().filter(|quote| matches!(quote, '"' | '\'')) else { return false };
    value.matches(quote).count() % 2 == 1
}

/// The characters of a line outside of quotes and comments.
fn bare(line: &str) -> impl Iterator<Item = char> {
    let mut quote = None;
    let mut is_comment = false;
    let mut before = ' ';
    line.chars().filter(move |c| {
        let previous = std::mem::replace(&mut before, *c);
        match quote {
            Some(open) if open == *c => quote = None,
            Some(_) => {}
            None if *c == '#' && previous.is_whitespace() => is_comment = true,
            None if matches!(c, '"' | '\'') && !is_comment && !previous.is_alphanumeric() => quote = Some(*c),
            None => return !is_comment,
        }
        false
    })
}
