//! Which images a file of instructions starts from, so that their registries can be shown the user's logins.

use std::collections::{BTreeMap, BTreeSet};

/// Returns the references behind `FROM` and `COPY --from=`, as far as they can be read without running anything.
pub(super) fn images(instructions: &str, args: &BTreeMap<String, String>) -> BTreeSet<String> {
    let mut values: BTreeMap<String, String> = BTreeMap::new();
    let mut stages = BTreeSet::from(["scratch".to_owned()]);
    let mut found: BTreeSet<String> = syntax(instructions).into_iter().collect();
    for line in instructions.lines() {
        let mut words = line.split_whitespace();
        let instruction = words.next().unwrap_or_default().to_uppercase();
        match instruction.as_str() {
            "ARG" => {
                for word in words {
                    let (name, default) = word.split_once('=').unwrap_or((word, ""));
                    let value = args.get(name).map_or(default, String::as_str);
                    values.insert(name.to_owned(), value.trim_matches(['"', '\'']).to_owned());
                }
            }
            "FROM" => {
                let mut words = words.filter(|word| !word.starts_with("--"));
                let image = filled(words.next().unwrap_or_default(), &values);
                if !stages.contains(&image) {
                    found.insert(image);
                }
                stages.extend(words.nth(1).map(str::to_owned));
            }
            "COPY" => {
                let from = words.find_map(|word| word.strip_prefix("--from=")).unwrap_or_default();
                let image = filled(from, &values);
                if !stages.contains(&image) && image.parse::<usize>().is_err() {
                    found.insert(image);
                }
            }
            _ => {}
        }
    }
    found.retain(|image| !image.is_empty() && !image.contains('$'));
    found
}

/// Returns the image that reads the instructions, should the first lines name one: `# syntax=docker/dockerfile:1`.
fn syntax(instructions: &str) -> Option<String> {
    let directives = instructions.lines().map_while(|line| line.trim().strip_prefix('#')?.split_once('='));
    let mut named = directives.filter(|(name, _)| name.trim().eq_ignore_ascii_case("syntax"));
    named.next().and_then(|(_, image)| Some(image.split_whitespace().next()?.to_owned()))
}

/// Replaces `$name`, `${name}` and `${name:-default}`.
fn filled(text: &str, values: &BTreeMap<String, String>) -> String {
    let mut filled = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        filled.push_str(before);
        let name_end = |text: &str| text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
        let braced = after.strip_prefix('{').and_then(|inner| inner.split_once('}'));
        let (name, default, behind) = if let Some((inner, behind)) = braced {
            let (name, default) = inner.split_at(name_end(inner));
            (name, default.strip_prefix(":-").unwrap_or_default(), behind)
        } else {
            let (name, behind) = after.split_at(name_end(after));
            (name, "", behind)
        };
        filled.push_str(values.get(name).filter(|value| !value.is_empty()).map_or(default, String::as_str));
        rest = behind;
    }
    filled + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base_images_are_found() {
        let text = "ARG VERSION=1\nARG base\nFROM --platform=linux/amd64 a.example/go:${VERSION} AS build\nFROM build\n\
                    COPY --from=build /a /a\nCOPY --from=0 /a /a\ncopy --from=tools:$VERSION /x /x\nFROM ${base:-plain} \n\
                    FROM scratch\nRUN FROM x\n";
        let args = BTreeMap::from([("VERSION".to_owned(), "2".to_owned())]);
        let found: Vec<_> = images(text, &args).into_iter().collect();
        assert_eq!(found, ["a.example/go:2", "plain", "tools:2"]);
        let found = images("# escape=x\n# Syntax = a.example/dockerfile:1 \nFROM scratch\n# syntax=b\n", &args);
        assert_eq!(found.into_iter().collect::<Vec<_>>(), ["a.example/dockerfile:1"]);
    }
}
