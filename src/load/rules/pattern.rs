//! The rows of a pattern's file. What it holds for services and volumes is checked where it is used, by the rows of those.

use super::{Rule, Shape, row};

use Shape::{Any, Bool, List, Map, Open, Text, Word};

const PATTERN: &str = "docs/patterns.md#writing-a-pattern";

/// Types of parameters.
const TYPES: &[&str] = &["string", "integer", "boolean", "duration", "bytes", "port", "service"];

#[rustfmt::skip]
pub(super) static ROWS: &[Rule] = &[
    row("", Map, PATTERN),
    row("name", Text, PATTERN),
    row("description", Text, PATTERN),
    row("parameters", Open, PATTERN).or_null(),
    row("parameters.*", Map, PATTERN),
    row("parameters.*.type", Word(TYPES, &[]), PATTERN),
    row("parameters.*.description", Text, PATTERN),
    row("parameters.*.default", Any, PATTERN),
    row("parameters.*.example", Any, PATTERN),
    row("parameters.*.required", Bool, PATTERN),
    row("parameters.*.enum", List, PATTERN).expected("a list of values"),
    row("parameters.*.enum.[]", Any, PATTERN),
    row("parameters.*.min", Any, PATTERN),
    row("parameters.*.max", Any, PATTERN),
    row("parameters.*.pattern", Text, PATTERN).expected("a regular expression"),
    row("service", Any, PATTERN),
    row("volumes", Any, PATTERN),
    row("configs", Any, PATTERN),
    row("secrets", Any, PATTERN),
];
