//! Names of images.

/// Longest name without host, tag and digest. Source: distribution/reference, `RepositoryNameTotalLengthMax`.
const LONGEST: usize = 255;

/// Returns whether an engine takes a text for an image: `[HOST[:PORT]/]NAME[:TAG][@DIGEST]`, or an id.
///
/// Source: distribution/reference, `regexp.go` and `ParseAnyReference`. Where engines differ (a first part in capitals, which
/// later ones take for a host), it is taken.
pub fn is_image(text: &str) -> bool {
    let (named, digest) = text.split_once('@').map_or((text, None), |(named, digest)| (named, Some(digest)));
    if digest.is_some_and(|digest| !is_digest(digest)) {
        return false;
    }
    let (host, rest) = match named.split_once('/') {
        Some((first, rest)) if is_host_like(first) => (Some(first), rest),
        _ => (None, named),
    };
    let (path, tag) = match rest.rsplit_once(':') {
        Some((path, tag)) if !tag.contains('/') => (path, Some(tag)),
        _ => (rest, None),
    };
    host.is_none_or(is_host) && tag.is_none_or(is_tag) && path.len() <= LONGEST && path.split('/').all(is_part)
}

/// The first part is a host where it could be nothing else, or is one by its looks.
fn is_host_like(first: &str) -> bool {
    first.contains(['.', ':']) || first == "localhost" || first.chars().any(|c| c.is_ascii_uppercase())
}

fn is_host(text: &str) -> bool {
    let (name, port) = match text.rsplit_once(':') {
        Some((name, port)) if !port.ends_with(']') => (name, Some(port)),
        _ => (text, None),
    };
    if port.is_some_and(|port| port.is_empty() || !port.bytes().all(|byte| byte.is_ascii_digit())) {
        return false;
    }
    if let Some(address) = name.strip_prefix('[') {
        let inside = address.strip_suffix(']').unwrap_or_default();
        return !inside.is_empty() && inside.chars().all(|c| c.is_ascii_hexdigit() || c == ':');
    }
    name.split('.').all(|label| {
        let inside = label.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
        !label.is_empty() && inside && !label.starts_with('-') && !label.ends_with('-')
    })
}

/// Small letters and digits, in groups with `.`, `_`, `__` or any number of `-` between.
fn is_part(text: &str) -> bool {
    let is_word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let mut between = text.split(is_word).filter(|between| !between.is_empty());
    let is_separator = |text: &str| matches!(text, "." | "_" | "__") || text.chars().all(|c| c == '-');
    text.starts_with(is_word) && text.ends_with(is_word) && between.all(is_separator)
}

fn is_tag(text: &str) -> bool {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.starts_with(is_word) && text.len() <= 128 && text.chars().all(|c| is_word(c) || matches!(c, '.' | '-'))
}

fn is_digest(text: &str) -> bool {
    let Some((algorithm, digits)) = text.split_once(':') else { return false };
    let is_kind = |kind: &str| {
        kind.starts_with(|c: char| c.is_ascii_alphabetic()) && kind.chars().all(|c| c.is_ascii_alphanumeric())
    };
    algorithm.split(['-', '_', '+', '.']).all(is_kind)
        && digits.len() >= 32
        && digits.chars().all(|c| c.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_images() {
        let digest = format!("sha256:{}", "0a".repeat(32));
        for good in [
            "busybox",
            "busybox:1.36",
            "library/busybox",
            "a.example/team/app:V1_2-3.x",
            "a.example:5000/app",
            "localhost/app",
            "localhost:5000/app:1",
            "[::1]:5000/app",
            "Registry/app",
            "a__b/c-d.e_f/g--h",
            "0123",
            &digest,
            &digest[7..],
            &format!("busybox@{digest}"),
            &format!("a.example:5000/busybox:1@{digest}"),
        ] {
            assert!(is_image(good), "{good}");
        }
        let long = format!("busybox:{}", "a".repeat(129));
        for bad in [
            "",
            "Foo Bar",
            "Busybox",
            "a/Busybox",
            "busybox:",
            "busybox:a b",
            "busybox:-1",
            "busybox@sha256:12",
            "busybox@",
            ":1",
            "/busybox",
            "busybox/",
            "a//b",
            "a___b",
            "a..b",
            "-a",
            "a-",
            "a.example:port/app",
            "a.example:/app",
            "http://a.example/app",
            "$IMAGE",
            &long,
        ] {
            assert!(!is_image(bad), "{bad}");
        }
    }
}
