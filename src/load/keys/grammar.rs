//! Grammar of HTTP in texts: tokens, paths, values of header fields.

/// Longest path that a route may have.
const MAX_PATH: usize = 2_048;

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
}
