//! Grammar of HTTP in texts: tokens, paths, values of header fields.

use crate::model::resolved;

/// Longest path that a route may have.
pub(super) const MAX_PATH: usize = 2_048;

/// Returns whether a text is a token: a method, the name of a header field or of a cookie. Source: RFC 9110, 5.6.2.
pub(super) fn is_token(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 256
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}

/// Returns whether a text may be the value of a header field, without space at its ends. Source: RFC 9110, 5.5.
pub(super) fn is_field_value(text: &str) -> bool {
    text.trim() == text && text.chars().all(|c| !c.is_control() || c == '\t')
}

/// Checks a path that requests are matched by or changed to: from `/` on, without query.
pub(super) fn path(text: &str) -> Result<(), &'static str> {
    if !text.starts_with('/') {
        return Err("must start with `/`");
    }
    if text.len() > MAX_PATH {
        return Err("is too long");
    }
    if text.contains(['?', '#']) {
        return Err("must be without query and fragment");
    }
    if text.contains('*') {
        return Err("has no wildcards: a prefix takes all that is below it");
    }
    if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("has characters that a path cannot hold, write them as `%XX`");
    }
    Ok(())
}

/// Returns a path with `%XX` for what a path cannot hold; `None`: it holds nothing of that. Source: RFC 3986, section 3.3.
pub(super) fn escaped(text: &str) -> Option<String> {
    let is_of_path = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@/%".contains(&byte);
    let one = |byte: u8| if is_of_path(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    (!text.bytes().all(is_of_path)).then(|| text.bytes().map(one).collect())
}

/// Returns the path that somebody may mean by what [`path`] refuses; `None`: it is too long.
pub(super) fn as_path(text: &str) -> Option<String> {
    // Of an address what comes after the host; no query, and of what has a wildcard all that is before it.
    let after_host = text.split_once("://").map(|(_, rest)| rest.find('/').map_or("/", |at| &rest[at..]));
    let text = after_host.unwrap_or(text).trim();
    let end = text.find(['?', '#', '*']).unwrap_or(text.len());
    let text = if text[end..].starts_with('*') { &text[..text[..end].rfind('/').unwrap_or(0)] } else { &text[..end] };
    let rooted = if text.starts_with('/') { text.to_owned() } else { format!("/{text}") };
    let plain = escaped(&rooted).unwrap_or(rooted);
    let plain = match resolved(plain.as_bytes()) {
        Some(other) => String::from_utf8_lossy(&other).into_owned(),
        None => plain,
    };
    path(&plain).is_ok().then_some(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_values_and_paths() {
        assert!(is_token("X-Canary") && is_token("GET") && !is_token("") && !is_token("a b") && !is_token("a:b"));
        assert!(is_field_value("") && is_field_value("a b") && !is_field_value(" a") && !is_field_value("a\r\nb"));
        for (text, valid) in [
            ("/", true),
            ("/a/b%20c", true),
            ("a", false),
            ("/a?b", false),
            ("/a/*", false),
            ("/é", false),
            ("", false),
        ] {
            assert_eq!(path(text).is_ok(), valid, "{text}");
        }
    }

    #[test]
    fn what_is_no_path_is_written_as_the_one_that_is_meant() {
        for (text, meant) in [
            ("", "/"),
            ("api", "/api"),
            ("/a/é", "/a/%C3%A9"),
            ("/a b\tc", "/a%20b%09c"),
            ("/a?b=c", "/a"),
            ("/a/#b", "/a/"),
            ("/a/*", "/a"),
            ("/a/x*/b", "/a"),
            ("*", "/"),
            ("./a/../é", "/%C3%A9"),
            ("https://x.test/y?z", "/y"),
            ("https://x.test", "/"),
            (" /a ", "/a"),
        ] {
            assert!(path(text).is_err(), "{text}");
            assert_eq!(as_path(text).as_deref(), Some(meant), "{text}");
        }
        assert_eq!(as_path(&format!("/{}", "é".repeat(MAX_PATH))), None);
        assert_eq!(escaped("/a-b/%20;c=d(e)"), None);
        assert_eq!(escaped("/<a>\\").as_deref(), Some("/%3Ca%3E%5C"));
    }
}
