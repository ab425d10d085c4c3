//! What people meant who wrote what is not YAML: guessed from the lines around the place where the parser gave up, which is often
//! one after the slip. Nothing is said where nothing is known.

use std::ops::Range;

use crate::diag::did_you_mean;

use super::indents::end_of_quoted;

/// Lines that are looked at before the place; a quote that lacks its end is seldom further away.
const BEFORE: usize = 200;
/// Anchors that are looked at, and bytes of the name of one.
const ANCHORS: usize = 1000;
const LONGEST: usize = 64;

/// What to do about an error of syntax.
pub(super) struct Help {
    /// In words.
    pub(super) words: String,
    /// Where the slip is, in bytes, if it is not where the parser gave up.
    pub(super) slip: Option<Range<usize>>,
}

impl Help {
    fn here(words: String) -> Self {
        Self { words, slip: None }
    }
}

/// Returns what to do about an error of syntax at byte `at` of `text`, of which the parser says `what`.
pub(super) fn help(text: &str, at: usize, what: &str) -> Option<Help> {
    let at = (0..=at.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    let place = Place::new(text, at);
    page(text)
        .or_else(|| place.conflict())
        .map(Help::here)
        .or_else(|| place.blanks())
        .or_else(|| place.sign_of_elsewhere())
        .or_else(|| place.block_text())
        .or_else(|| place.alias().or_else(|| place.sign()).or_else(|| place.value_with_colon()).map(Help::here))
        .or_else(|| place.no_colon(what == "simple key expect ':'"))
        .or_else(|| place.no_colon_in_the_first())
        .or_else(|| place.no_colon_before_brackets())
        .or_else(|| place.no_space())
        .or_else(|| place.no_comma())
        .or_else(|| place.quote())
        .or_else(|| place.bracket().map(Help::here))
        .or_else(|| place.column())
        .or_else(|| place.no_dash().map(Help::here))
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

    /// Where a line of the text is.
    fn start(&self, line: &str) -> usize {
        let start = (line.as_ptr() as usize).checked_sub(self.text.as_ptr() as usize);
        start.filter(|start| *start <= self.text.len()).unwrap_or(0)
    }

    fn number(&self) -> usize {
        self.text[..self.at].lines().count().max(1)
    }

    fn blanks(&self) -> Option<Help> {
        let blanks = |line: &'a str| line.char_indices().take_while(|(_, c)| c.is_whitespace());
        // The parser may give up in the text before a line that begins with a tab.
        let own = self.start(self.line);
        let next = self.text.get(own..).unwrap_or("").lines().nth(1).unwrap_or("");
        let lines = self.both().into_iter().chain([next]);
        let (at, wrong) = lines
            .flat_map(|line| blanks(line).map(move |(at, c)| (self.start(line) + at, c)))
            .find(|(_, c)| *c != ' ')?;
        let words = match wrong {
            '\t' => "indent with spaces: YAML takes no tabs".to_owned(),
            other => format!(
                "indent with plain spaces, not with U+{:04X}, as text from pages of the web has it",
                u32::from(other)
            ),
        };
        Some(Help { words, slip: Some(at..at + wrong.len_utf8()) })
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

    /// A key without its colon makes text of the lines below it, up to the next key. `is_certain`: the parser says so.
    fn no_colon(&self, is_certain: bool) -> Option<Help> {
        let (number, line) = if is_certain {
            *self.before.iter().rev().find(|(_, line)| item(line).is_none() && line.trim() != "-")?
        } else {
            *self.before.last()?
        };
        let text = line.trim();
        let word = text.split_whitespace().next().unwrap_or_default();
        let start = self.start(line) + indent(line);
        let is_certain = is_certain || word.ends_with('=');
        let of = |words: String, length: usize| Some(Help { words, slip: is_certain.then_some(start..start + length) });
        if key_and_value(line).is_some() {
            return None;
        }
        if let Some(key) = word.strip_suffix('=').filter(|key| is_key(key)) {
            return of(format!("write `{key}:` instead of `{word}` in line {number}"), word.len());
        }
        if is_certain && word.len() > 1 && word.starts_with('-') {
            return of(format!("a space is missing after `-` in line {number}"), 1);
        }
        if let Some((key, rest)) =
            word.split_once(':').filter(|(key, rest)| is_certain && is_key(key) && !rest.is_empty())
        {
            return of(format!("a space is missing before `{rest}` in line {number}"), key.len() + 1);
        }
        let found =
            is_key(word) && !word.starts_with('-') && (is_certain || text == word && indent(self.line) >= indent(line));
        found.then(|| of(format!("a colon is missing after `{word}` in line {number}"), word.len()))?
    }

    /// `image nginx` or `image:nginx` as the first line of a mapping makes text of that, which the next key cannot follow.
    fn no_colon_in_the_first(&self) -> Option<Help> {
        let (number, line) = *self.before.last()?;
        let above = self.before.iter().rev().nth(1).map(|(_, above)| *above);
        let text = item(line).unwrap_or(line.trim());
        let start = self.start(line) + line.trim_end().len() - text.len();
        let column = start - self.start(line);
        // Nothing can go on in the next line behind these.
        let ends = |value: &str| {
            let value = without_properties(value);
            value.is_empty() || value.starts_with(['*', '"', '\'', '[', '{'])
        };
        let is_first = item(line).is_some()
            || above.is_none_or(|above| above == "---" || key_and_value(above).is_some_and(|(_, value)| ends(value)));
        if !is_first
            || column != indent(self.line)
            || key_and_value(line).is_some()
            || key_and_value(self.line).is_none()
        {
            return None;
        }
        let word = text.split_whitespace().next().filter(|word| !word.starts_with('-'))?;
        let (words, length) = match word.split_once(':') {
            Some((key, rest)) if is_key(key) => {
                (format!("a space is missing before `{rest}` in line {number}"), key.len() + 1)
            }
            None if is_key(word) || word == "<<" => {
                (format!("a colon is missing after `{word}` in line {number}"), word.len())
            }
            _ => return None,
        };
        Some(Help { words, slip: Some(start..start + length) })
    }

    /// `networks {a: {}}`, `networks= [a]`
    fn no_colon_before_brackets(&self) -> Option<Help> {
        let text = item(self.line).unwrap_or(self.line.trim());
        let (word, rest) = text.split_once(' ')?;
        if !rest.trim_start().starts_with(['{', '[']) {
            return None;
        }
        let start = self.start(self.line) + self.line.trim_end().len() - text.len();
        let key = word.strip_suffix('=').unwrap_or(word);
        let words = if key == word {
            format!("a colon is missing after `{word}`")
        } else {
            format!("write `{key}:` instead of `{word}`")
        };
        is_key(key).then(|| Help { words, slip: Some(start..start + word.len()) })
    }

    /// `image:nginx`, `-"80:80"`.
    fn no_space(&self) -> Option<Help> {
        let is_value = |rest: &str| {
            rest.starts_with(char::is_alphanumeric) || rest.starts_with(['"', '\'', '[', '{', '$', '.', '*', '&'])
        };
        let line = self.both().into_iter().map(str::trim).find(|line| {
            line.strip_prefix('-').is_some_and(|rest| rest.starts_with(['"', '\'']))
                || line.split_once(':').is_some_and(|(key, rest)| is_key(key) && is_value(rest))
        })?;
        let sign = if line.starts_with('-') { '-' } else { ':' };
        let at = self.start(line) + line.find(sign).unwrap_or_default();
        Some(Help { words: format!("a space is missing after `{sign}` in `{line}`"), slip: Some(at..at + 1) })
    }

    /// Signs that look like those of YAML, and are none: `：` of Chinese and Japanese keyboards, dashes of text processors; `//`.
    fn sign_of_elsewhere(&self) -> Option<Help> {
        self.both().into_iter().find_map(|line| {
            let (at, words) = comment(line).or_else(|| elsewhere(line))?;
            // Within a value it may be meant.
            if at > indent(line) && key_and_value(line).is_some() {
                return None;
            }
            let at = self.start(line) + at;
            let length = self.text.get(at..)?.chars().next()?.len_utf8();
            Some(Help { words, slip: Some(at..at + length) })
        })
    }

    /// Text behind `|` or `>` that stands no deeper than its key.
    fn block_text(&self) -> Option<Help> {
        let is_block = |line: &str| {
            let (_, value) = key_and_value(line).or_else(|| item(line).map(|value| ("", value)))?;
            let sign = value.chars().next().filter(|sign| "|>".contains(*sign))?;
            value[1..].chars().all(|c| c.is_ascii_digit() || "+-".contains(c)).then_some(sign)
        };
        let (above, number, line) = match self.before[..] {
            [.., (_, above), (number, line)] if is_block(above).is_some() => (above, number, line),
            [.., (_, above)] => (above, self.number(), self.line),
            [] => return None,
        };
        let sign = is_block(above)?;
        let is_text = key_and_value(line).is_none() && indent(line) <= indent(above) && !line.trim().is_empty();
        let start = self.start(line) + indent(line);
        is_text.then(|| Help {
            words: format!("indent line {number}, and all of the text of `{sign}`, deeper than its key"),
            slip: Some(start..start + line.trim().len()),
        })
    }

    /// `{"a": "b" "c": "d"}`
    fn no_comma(&self) -> Option<Help> {
        let before = self.text.get(..self.at)?.trim_end();
        let after = self.text.get(self.at..)?.chars().next()?;
        let start =
            before.rfind(['\n', '{', '[', ',']).filter(|start| before[*start..].starts_with(['{', '[', ',']))?;
        let is_closed = before[start..].ends_with(['"', '\'']) && before[start..].matches(['"', '\'']).count() % 2 == 0;
        (is_closed && matches!(after, '"' | '\'')).then(|| Help::here("a comma is missing before this".to_owned()))
    }

    /// A quote without its end, or text behind one.
    fn quote(&self) -> Option<Help> {
        if let Some((_, value)) = key_and_value(self.line).or_else(|| item(self.line).map(|value| ("", value)))
            && let Some(quote) = value.chars().next().filter(|quote| matches!(quote, '"' | '\''))
            && let Some(end) = value[1..].find(quote)
            && !value[end + 2..].trim_start().is_empty()
            && !value[end + 2..].trim_start().starts_with(['#', ',', ']', '}'])
        {
            let other = if quote == '"' { '\'' } else { '"' };
            return Some(Help::here(format!(
                "the text ends with the second `{quote}`, and more follows: put the whole in `{other}`, or double the `'` in it"
            )));
        }
        let own = (self.number(), self.line);
        if self.text[self.at..].starts_with(['"', '\'']) && end_of_quoted(self.text, self.at).is_none() {
            return Some(Help::here(format!("the quote in line {} has no end", own.0)));
        }
        let all = || self.before.iter().copied().chain([own]).filter(|(_, line)| open_quote(line).is_some());
        let opened = |(number, line): (usize, &str)| Some((number, self.start(line) + open_quote(line)?));
        // The text that the quote begins ends where the parser gave up, at the quote that begins another text.
        let found = all().filter_map(opened).find(|(_, open)| {
            let end = end_of_quoted(self.text, *open);
            end.is_none_or(|end| self.text.get(end..self.at).is_some_and(|between| between.trim().is_empty()))
        });
        let (number, slip) = match found {
            Some((number, open)) => (number, Some(open..open + 1)),
            None => (all().next()?.0, None),
        };
        Some(Help { words: format!("the quote in line {number} has no end"), slip })
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
    fn column(&self) -> Option<Help> {
        let (here, before) = (indent(self.line), indent(self.previous()));
        let value = key_and_value(self.previous()).map(|(_, value)| value).or(item(self.previous()));
        if here > before && value.is_some_and(|value| !value.is_empty()) {
            return Some(Help::here(
                "this line stands deeper than the one before, which has a value already: align the two".to_owned(),
            ));
        }
        // Lines that stand deeper than this one, up to the one that it may belong to.
        let deeper = self.before.iter().rev().take_while(|(_, line)| indent(line) > here);
        let (number, line) = deeper.clone().min_by_key(|(_, line)| indent(line)).or(self.before.last())?;
        let above = self.before.iter().rev().find(|(_, line)| indent(line) <= here);
        // What is below this line stands where the lines before stand: so it is this line that is odd.
        let is_own = |(_, above): &&(usize, &str)| {
            indent(above) + 1 == here
                && self.next().is_some_and(|next| indent(next) > here && indent(next) == indent(line))
                && deeper.clone().count() > 0
        };
        if let Some((number, _)) = above.filter(is_own) {
            return Some(self.own_odd(*number, "deeper"));
        }
        if indent(line) == here + 1 {
            let beside = deeper.clone().filter(|(_, other)| indent(other) == here + 1).count();
            if beside > 1 && !self.before.iter().any(|(_, line)| indent(line) == here) {
                return Some(self.own_odd(*number, "further left"));
            }
            return Some(self.odd(*number, line, "deeper"));
        }
        let (number, above) = above?;
        if indent(above) + 1 == here && deeper.count() > 0 {
            return Some(self.odd(*number, above, "further left"));
        }
        if let Some(help) = self.item_to_the_left() {
            return Some(help);
        }
        let is_column = self.before.iter().any(|(_, line)| indent(line) == here);
        (here < before && !is_column).then(|| {
            Help::here("no line before stands in this column: align it with those that it belongs to".to_owned())
        })
    }

    /// The first line after this one that holds something.
    fn next(&self) -> Option<&'a str> {
        self.text.get(self.start(self.line)..)?.lines().skip(1).find(|line| holds(line))
    }

    /// An item further left than those before it, or than the key of its list.
    fn item_to_the_left(&self) -> Option<Help> {
        let here = indent(self.line);
        if !self.line.trim_start().starts_with("- ") || here >= indent(self.previous()) {
            return None;
        }
        let column = self.start(self.line) + here;
        let slip = Some(column..column + 1);
        let is_item = |line: &str| line.trim_start().starts_with("- ");
        let mut deeper = self.before.iter().rev().take_while(|(_, line)| indent(line) >= here);
        let words = if let Some((number, _)) = deeper.find(|(_, line)| is_item(line) && indent(line) > here) {
            format!("this item stands further left than the one of line {number}: align the two")
        } else {
            let (number, _) = self.before.last().filter(|(_, line)| line.trim_end().ends_with(':'))?;
            format!("this item stands further left than the key of its list in line {number}: indent it")
        };
        Some(Help { words, slip })
    }

    /// This line is the one that is one column off.
    fn own_odd(&self, number: usize, how: &str) -> Help {
        let start = self.start(self.line) + indent(self.line);
        let words = format!("line {} stands one column {how} than line {number}: align the two", self.number());
        Help { words, slip: Some(start..start + 1) }
    }

    /// A line that is one column off.
    fn odd(&self, number: usize, line: &str, how: &str) -> Help {
        let start = self.start(line) + indent(line);
        let words = format!("line {number} stands one column {how} than line {}: align the two", self.number());
        Help { words, slip: Some(start..start + 1) }
    }

    /// An item among keys, or a key among items.
    fn no_dash(&self) -> Option<String> {
        let number = self.before.last().map(|(number, _)| *number)?;
        let items = [self.previous(), self.line].map(|line| line.trim_start().starts_with("- "));
        match items {
            _ if indent(self.line) != indent(self.previous()) => None,
            [false, true] => Some(format!("line {number} has no `- ` before it, and this one has: write both alike")),
            [true, false] => {
                Some(format!("line {number} has a `- ` before it, and this one has not: write both alike"))
            }
            _ => None,
        }
    }
}

/// Returns what to do about a comment of another language, and where it is.
pub(super) fn comment(text: &str) -> Option<(usize, String)> {
    let start = text.len() - text.trim_start().len();
    text[start..].starts_with("//").then(|| (start, "comments start with `#`".to_owned()))
}

/// Returns what to do about a sign in a text that looks like one of YAML's and is none, and where it is; about what cannot be seen,
/// too.
pub(super) fn elsewhere(text: &str) -> Option<(usize, String)> {
    let start = text.len() - text.trim_start().len();
    if let Some(dash) = text[start..].chars().next().filter(|c| matches!(c, '\u{2010}'..='\u{2015}' | '\u{2212}')) {
        return Some((start, format!("write `- ` with a plain hyphen, not with `{dash}`")));
    }
    text.char_indices().find_map(|(at, c)| {
        let words = match c {
            '\u{ff1a}' => "write `: ` instead of `：`, which is another sign".to_owned(),
            '\u{200b}'..='\u{200f}' | '\u{2060}' | '\u{feff}' | '\u{ad}' => {
                format!("take out U+{:04X}, which cannot be seen", u32::from(c))
            }
            '\u{a0}' | '\u{2007}' | '\u{202f}' | '\u{3000}' => {
                format!("write a plain space, not U+{:04X}, as text from pages of the web has it", u32::from(c))
            }
            _ => return None,
        };
        Some((at, words))
    })
}

/// Returns whether the line behind byte `at` is indented with blanks that YAML takes for text.
pub(super) fn goes_on_with_odd_blanks(text: &str, at: usize) -> bool {
    let next = text.get(at..).and_then(|rest| rest.lines().skip(1).find(|line| holds(line)));
    next.and_then(|line| line.trim_start_matches(' ').chars().next()).is_some_and(char::is_whitespace)
}

/// Returns what to do where the text that begins at byte `at` goes on in a next line that was meant to be an item.
pub(super) fn swallowed(text: &str, at: usize) -> Option<String> {
    let start = text.get(..at)?.rfind('\n').map_or(0, |newline| newline + 1);
    let mut lines = text.get(start..)?.lines();
    let line = lines.next()?;
    let value = key_and_value(line).map(|(_, value)| value).or_else(|| item(line))?;
    if value.is_empty()
        || value.starts_with(['"', '\'', '[', '{', '|', '>', '*', '&', '!', '#'])
        || value.contains(" #")
    {
        return None;
    }
    let next = lines.next().filter(|next| indent(next) > indent(line) && next.trim_start().starts_with("- "))?;
    let number = text[..start].lines().count() + 2;
    let align = if item(line).is_some() { "align the two" } else { "put all items into lines of their own" };
    Some(format!("`{}` in line {number} is read as part of this text: {align}", next.trim()))
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

/// A value without its anchor, tag and comment.
fn without_properties(value: &str) -> &str {
    let mut rest = value;
    while rest.starts_with(['&', '!']) {
        rest = rest.split_once(' ').map_or("", |(_, rest)| rest.trim_start());
    }
    if rest.starts_with('#') { "" } else { rest }
}

/// Returns where in a line a quote is that does not end there.
fn open_quote(line: &str) -> Option<usize> {
    let value = key_and_value(line).map(|(_, value)| value).or_else(|| item(line)).unwrap_or(line.trim());
    let value = value.trim_start_matches(['[', '{', ' ']);
    let quote = value.chars().next().filter(|quote| matches!(quote, '"' | '\''))?;
    (value.matches(quote).count() % 2 == 1).then(|| line.trim_end().len() - value.len())
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
