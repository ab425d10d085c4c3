//! Paths of requests, as those read them who resolve them: what a route can match, and what the balancer refuses.

/// Returns a path as who resolves it reads it, if that is another one: without dot segments and empty ones, with what needs no
/// `%` written out. Sources: RFC 3986, sections 5.2.4 and 6.2.2; servers merge slashes and decode `%2F` before they look.
pub fn resolved(path: &[u8]) -> Option<Vec<u8>> {
    let is_plain = memchr::memchr(b'%', path).is_none()
        && memchr::memmem::find(path, b"//").is_none()
        && memchr::memmem::find(path, b"/.").is_none();
    if is_plain {
        return None;
    }
    let mut decoded = Vec::with_capacity(path.len());
    let mut rest = path;
    while let Some((byte, after)) = rest.split_first() {
        let hex = |at: usize| after.get(at).and_then(|digit| char::from(*digit).to_digit(16));
        let code = hex(0).zip(hex(1)).and_then(|(high, low)| u8::try_from(high * 16 + low).ok());
        if let Some(code) = code.filter(|code| *byte == b'%' && is_plain_in_paths(*code)) {
            decoded.push(code);
            rest = &after[2..];
        } else {
            decoded.push(*byte);
            rest = after;
        }
    }
    let mut segments: Vec<&[u8]> = Vec::new();
    let mut is_open = false;
    for segment in decoded.split(|byte| *byte == b'/') {
        is_open = matches!(segment, b"" | b"." | b"..");
        match segment {
            b"" | b"." => {}
            b".." => drop(segments.pop()),
            name => segments.push(name),
        }
    }
    let mut path_of = Vec::with_capacity(decoded.len());
    for segment in segments {
        path_of.push(b'/');
        path_of.extend_from_slice(segment);
    }
    if is_open || path_of.is_empty() {
        path_of.push(b'/');
    }
    (path_of != path).then_some(path_of)
}

/// Returns whether a byte means the same in a path with and without `%`, or is taken to by servers.
fn is_plain_in_paths(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~' | b'/')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn paths_are_resolved_as_servers_do() {
        let show = |path: &str| resolved(path.as_bytes()).map(|path| String::from_utf8(path).expect("text"));
        for (path, expected) in [
            ("/", None),
            ("/a/b", None),
            ("/.well-known/a..b/...", None),
            ("/a%20b%3f%", None),
            ("/a/../b", Some("/b")),
            ("/a/..", Some("/")),
            ("/../../a/", Some("/a/")),
            ("/a/./b/.", Some("/a/b/")),
            ("//a///b", Some("/a/b")),
            ("/%61/%2e%2E/b%2fc", Some("/b/c")),
            ("/a%2", None),
            ("/%", None),
        ] {
            assert_eq!(show(path).as_deref(), expected, "{path}");
        }
    }

    proptest! {
        #[test]
        fn no_path_breaks_the_resolving_of_paths(path in "(/|\\.|%2e|%2F|%|a|[^/]){0,20}") {
            if let Some(path) = resolved(path.as_bytes()) {
                prop_assert_eq!(path[0], b'/');
                prop_assert!(!path.windows(2).any(|two| two == b"//"));
                prop_assert!(!path.split(|byte| *byte == b'/').any(|segment| segment == b".." || segment == b"."));
            }
        }
    }
}
