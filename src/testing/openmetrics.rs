//! A strict reader of `OpenMetrics` text, for tests: what it takes, any collector takes.
//!
//! Source: `OpenMetrics` 1.0.0, sections "ABNF" and "Overall Structure", for the types that orch uses.

use std::collections::{BTreeMap, BTreeSet};

/// One sample.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// Its name with suffix.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its value.
    pub value: f64,
}

/// One metric.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Family {
    /// `counter`, `gauge`, `histogram`, `info`.
    pub kind: String,
    /// `seconds`, `bytes`; empty: none.
    pub unit: String,
    /// What it means.
    pub help: String,
    /// Its samples in their order.
    pub samples: Vec<Sample>,
}

/// All that was told.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Scrape {
    /// The metrics by name, without suffix.
    pub families: BTreeMap<String, Family>,
}

impl Scrape {
    /// Reads a whole text.
    ///
    /// # Errors
    /// The first line that breaks a rule, and which.
    pub fn read(text: &str) -> Result<Self, String> {
        let mut scrape = Self::default();
        let mut current = String::new();
        let body = text.strip_suffix("# EOF\n").ok_or("it does not end with `# EOF`")?;
        for line in body.split_terminator('\n') {
            let told = match line.strip_prefix("# ") {
                Some(said) => scrape.descriptor(said, &mut current),
                None => scrape.sample(line, &current),
            };
            told.map_err(|wrong| format!("{wrong}: {line}"))?;
        }
        for (name, family) in &scrape.families {
            check(name, family).map_err(|wrong| format!("{name}: {wrong}"))?;
        }
        Ok(scrape)
    }

    /// Returns the sum of the samples of this name that have these labels, among others; `None`: there is none.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let all = self.families.values().flat_map(|family| &family.samples);
        let has = |sample: &&Sample| {
            sample.name == name
                && labels.iter().all(|(key, value)| sample.labels.get(*key).is_some_and(|there| there == value))
        };
        let found: Vec<f64> = all.filter(has).map(|sample| sample.value).collect();
        (!found.is_empty()).then(|| found.iter().sum())
    }

    fn descriptor(&mut self, said: &str, current: &mut String) -> Result<(), String> {
        let (word, rest) = said.split_once(' ').ok_or("a comment")?;
        let (name, what) = rest.split_once(' ').ok_or("a descriptor without content")?;
        if !is_name(name) {
            return Err("not a name".to_owned());
        }
        if current != name {
            if self.families.contains_key(name) {
                return Err("samples of a metric do not stand together".to_owned());
            }
            name.clone_into(current);
        }
        let family = self.families.entry(name.to_owned()).or_default();
        let place = match word {
            "HELP" => &mut family.help,
            "TYPE" => &mut family.kind,
            "UNIT" => &mut family.unit,
            _ => return Err("an unknown descriptor".to_owned()),
        };
        if !place.is_empty() || !family.samples.is_empty() {
            return Err("a descriptor twice, or behind samples".to_owned());
        }
        what.clone_into(place);
        Ok(())
    }

    fn sample(&mut self, line: &str, current: &str) -> Result<(), String> {
        let end = line.find(['{', ' ']).ok_or("no value")?;
        let (name, rest) = line.split_at(end);
        let (labels, value) = match rest.strip_prefix('{') {
            Some(labels) => read_labels(labels)?,
            None => (BTreeMap::new(), rest),
        };
        let value = value.strip_prefix(' ').ok_or("no space before the value")?;
        let value: f64 = value.parse().map_err(|_| "not a number")?;
        let family = self.families.get_mut(current).ok_or("a sample without descriptor")?;
        let suffix = name.strip_prefix(current).ok_or("a sample of another metric")?;
        let allowed: &[&str] = match family.kind.as_str() {
            "counter" => &["_total"],
            "gauge" => &[""],
            "info" => &["_info"],
            "histogram" => &["_bucket", "_sum", "_count"],
            _ => return Err("an unknown type".to_owned()),
        };
        if !allowed.contains(&suffix) {
            return Err("a suffix that the type does not have".to_owned());
        }
        let is_wrong = match family.kind.as_str() {
            "info" => (value - 1.0).abs() > f64::EPSILON,
            "gauge" => value.is_nan(),
            _ => !value.is_finite() || value < 0.0,
        };
        if is_wrong {
            return Err("a value that the type cannot have".to_owned());
        }
        family.samples.push(Sample { name: name.to_owned(), labels, value });
        Ok(())
    }
}

/// Reads what stands between braces, up to the closing one.
fn read_labels(text: &str) -> Result<(BTreeMap<String, String>, &str), String> {
    let mut labels = BTreeMap::new();
    let mut rest = text;
    loop {
        let (key, after) = rest.split_once("=\"").ok_or("a label without value")?;
        if !is_name(key) || key.contains(':') {
            return Err("not the name of a label".to_owned());
        }
        let (value, after) = read_quoted(after)?;
        if labels.insert(key.to_owned(), value).is_some() {
            return Err("a label twice".to_owned());
        }
        match after.split_at_checked(1) {
            Some((",", more)) => rest = more,
            Some(("}", value)) => return Ok((labels, value)),
            _ => return Err("labels without end".to_owned()),
        }
    }
}

fn read_quoted(text: &str) -> Result<(String, &str), String> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, next)) = chars.next() {
        match next {
            '"' => return Ok((value, &text[at + 1..])),
            '\\' => match chars.next() {
                Some((_, 'n')) => value.push('\n'),
                Some((_, escaped @ ('\\' | '"'))) => value.push(escaped),
                _ => return Err("an unknown escape".to_owned()),
            },
            other => value.push(other),
        }
    }
    Err("a value without end".to_owned())
}

/// Checks what holds of a metric as a whole.
fn check(name: &str, family: &Family) -> Result<(), String> {
    if family.help.is_empty() || family.kind.is_empty() {
        return Err("without help or type".to_owned());
    }
    if !family.unit.is_empty() && !name.ends_with(&format!("_{}", family.unit)) {
        return Err("its name does not end with its unit".to_owned());
    }
    let mut seen = BTreeSet::new();
    for sample in &family.samples {
        if !seen.insert((&sample.name, &sample.labels)) {
            return Err(format!("a sample twice: {sample:?}"));
        }
    }
    if family.kind == "histogram" { check_histograms(name, family) } else { Ok(()) }
}

/// The samples of one histogram.
#[derive(Default)]
struct Histogram {
    /// Each with its end.
    buckets: Vec<(f64, f64)>,
    count: Option<f64>,
    has_sum: bool,
}

fn check_histograms(name: &str, family: &Family) -> Result<(), String> {
    let mut groups: BTreeMap<BTreeMap<&str, &str>, Histogram> = BTreeMap::new();
    for sample in &family.samples {
        let mut labels: BTreeMap<&str, &str> =
            sample.labels.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        let end = labels.remove("le");
        let Histogram { buckets, count, has_sum } = groups.entry(labels).or_default();
        match (sample.name.strip_prefix(name), end) {
            (Some("_bucket"), Some(end)) => buckets.push((end.parse().map_err(|_| "not an end")?, sample.value)),
            (Some("_count"), None) => *count = Some(sample.value),
            (Some("_sum"), None) => *has_sum = true,
            _ => return Err("a bucket without end, or an end without bucket".to_owned()),
        }
    }
    for Histogram { buckets, count, has_sum } in groups.values() {
        let grows = buckets.is_sorted_by(|(end, value), (next, more)| end < next && value <= more);
        let whole = buckets.last().is_some_and(|(end, value)| end.is_infinite() && Some(*value) == *count);
        if !grows || !whole || !has_sum {
            return Err("buckets that are no histogram".to_owned());
        }
    }
    Ok(())
}

fn is_name(text: &str) -> bool {
    let is_first = |c: char| c.is_ascii_alphabetic() || c == '_' || c == ':';
    text.starts_with(is_first) && text.chars().all(|c| is_first(c) || c.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_breaks_a_rule_is_refused() {
        let good = "# HELP a Some\n# TYPE a counter\na_total{b=\"c\\\"\",d=\"\"} 1\n# EOF\n";
        let scrape = Scrape::read(good).expect("good");
        assert_eq!(scrape.sum("a_total", &[("b", "c\"")]), Some(1.0));
        assert_eq!(scrape.sum("a_total", &[("b", "c")]), None);
        for (what, by) in [
            ("# EOF\n", ""),
            ("# HELP a Some\n", ""),
            ("# TYPE a counter\n", ""),
            ("a_total", "a"),
            ("a_total", "b_total"),
            ("} 1", "} -1"),
            ("} 1", "}1"),
            ("d=", "b="),
            ("\\\"", "\\x"),
            (",d=", ",d-e="),
        ] {
            assert!(Scrape::read(&good.replace(what, by)).is_err(), "{what} -> {by}");
        }
        let twice = good.replace("# EOF\n", "a_total{d=\"\",b=\"c\\\"\"} 2\n# EOF\n");
        assert!(Scrape::read(&twice).is_err());
    }

    #[test]
    fn histograms_grow_to_their_count() {
        let good = "# HELP h Some\n# TYPE h histogram\nh_sum 2.5\nh_count 3\nh_bucket{le=\"0.5\"} 1\nh_bucket{le=\"+Inf\"} 3\n# EOF\n";
        assert!(Scrape::read(good).is_ok());
        for (what, by) in [("} 1", "} 4"), ("\"} 3", "\"} 2"), ("+Inf", "0.7"), ("h_sum 2.5\n", ""), ("le=", "ge=")] {
            assert!(Scrape::read(&good.replace(what, by)).is_err(), "{what} -> {by}");
        }
    }
}
