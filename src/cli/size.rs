//! Sizes in Docker's words: `1.98MB` of what is stored and sent, `344KiB` of memory.

/// Powers of 1000. Source: docker/go-units, `HumanSizeWithPrecision(…, 3)`.
pub(crate) fn decimal(bytes: u64) -> String {
    scaled(bytes, 1000.0, 3, &["B", "kB", "MB", "GB", "TB", "PB", "EB"])
}

/// Powers of 1024. Source: docker/go-units, `BytesSize`.
pub(crate) fn binary(bytes: u64) -> String {
    scaled(bytes, 1024.0, 4, &["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"])
}

fn scaled(bytes: u64, base: f64, digits: u32, units: &[&str]) -> String {
    #[expect(clippy::cast_precision_loss, reason = "three or four digits are shown")]
    let mut size = bytes as f64;
    let mut unit = 0;
    while size >= base && unit + 1 < units.len() {
        size /= base;
        unit += 1;
    }
    format!("{}{}", significant(size, digits), units[unit])
}

/// `%.3g` of other languages: so many digits, no zeros at the end behind the point.
fn significant(value: f64, digits: u32) -> String {
    let before = std::iter::successors(Some(10.0), |power| Some(power * 10.0)).take_while(|power| value >= *power);
    let before = u32::try_from(before.count()).unwrap_or_default() + 1;
    let text = format!("{value:.*}", digits.saturating_sub(before) as usize);
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_those_of_dockers_client() {
        for (bytes, of_1000, of_1024) in [
            (0, "0B", "0B"),
            (932, "932B", "932B"),
            (1_000, "1kB", "1000B"),
            (1_040, "1.04kB", "1.016KiB"),
            (1_984_548, "1.98MB", "1.893MiB"),
            (352_256, "352kB", "344KiB"),
            (25_276_000_000, "25.3GB", "23.54GiB"),
            (u64::MAX, "18.4EB", "16EiB"),
        ] {
            assert_eq!((decimal(bytes).as_str(), binary(bytes).as_str()), (of_1000, of_1024));
        }
    }
}
