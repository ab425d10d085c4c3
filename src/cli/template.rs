//! Lists in the form that the user writes down: the part of Go's templates that people use with Docker's tools.
//!
//! Fields (`{{.Name}}`), a whole row or a field as JSON (`{{json .}}`, `{{json .Publishers}}`), text between, `\t` and
//! `\n`, and `table` before it for a header and columns. Everything else of Go's language is refused, never printed as is.

use serde::Serialize;
use serde_json::Value;

use super::error::CliError;
use super::table;
use super::ui::Ui;

/// Form of a list that may have a template.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum ListFormat {
    /// A table with a header.
    #[default]
    Table,
    /// JSON, an object a line.
    Json,
    /// As the user says.
    Template(Template),
}

/// A template, understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    pieces: Vec<Piece>,
    /// Whether columns are laid out under a header.
    is_table: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(String),
    Field { path: Vec<String>, json: bool },
}

impl ListFormat {
    /// Reads `table`, `json`, or a template.
    ///
    /// # Errors
    /// What is not understood of a template.
    pub fn parse(text: &str) -> Result<Self, String> {
        match text {
            "table" => Ok(Self::Table),
            "json" => Ok(Self::Json),
            text if text.contains("{{") => Template::parse(text).map(Self::Template),
            _ => Err("expected `table`, `json`, or a template like `{{.Name}}`".to_owned()),
        }
    }
}

impl Template {
    fn parse(text: &str) -> Result<Self, String> {
        let (is_table, text) = match text.strip_prefix("table ") {
            Some(rest) => (true, rest.trim_start()),
            None => (false, text),
        };
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("{{") {
            let (action, after) = after.split_once("}}").ok_or("a `{{` without its `}}`")?;
            pieces.push(Piece::Text(unescape(before)));
            pieces.push(field(action.trim())?);
            rest = after;
        }
        pieces.push(Piece::Text(unescape(rest)));
        pieces.retain(|piece| !matches!(piece, Piece::Text(text) if text.is_empty()));
        Ok(Self { pieces, is_table })
    }

    /// Prints rows, which are objects.
    ///
    /// # Errors
    /// A field that rows do not have, and what [`Ui::line`] says.
    pub(crate) fn print(&self, ui: &mut Ui, rows: &[Value]) -> Result<(), CliError> {
        let lines = rows.iter().map(|row| self.render(row)).collect::<Result<Vec<_>, _>>()?;
        if !self.is_table {
            return lines.iter().try_for_each(|line| ui.line(line));
        }
        let cells = |line: &str| line.split('\t').map(str::to_owned).collect::<Vec<_>>();
        let header = cells(&self.header());
        let rows: Vec<_> = lines.iter().map(|line| cells(line)).collect();
        ui.data(table::render_spaced(&header, &rows, table::USUAL).as_bytes())
    }

    fn render(&self, row: &Value) -> Result<String, CliError> {
        let mut text = String::new();
        for piece in &self.pieces {
            match piece {
                Piece::Text(part) => text.push_str(part),
                Piece::Field { path, json } => {
                    let value = find(row, path)?;
                    match value {
                        Value::String(word) if !json => text.push_str(word),
                        Value::Null if !json => {}
                        value => text.push_str(&value.to_string()),
                    }
                }
            }
        }
        Ok(text)
    }

    /// Names of the fields in capitals, as Docker's tools have them.
    fn header(&self) -> String {
        let word = |piece: &Piece| match piece {
            Piece::Text(text) => text.clone(),
            Piece::Field { path, .. } => match path.last().map(String::as_str) {
                Some("RunningFor") => "CREATED".to_owned(),
                Some("ID") => "CONTAINER ID".to_owned(),
                Some("ExitCode") => "EXIT CODE".to_owned(),
                Some(name) => name.to_uppercase(),
                None => String::new(),
            },
        };
        self.pieces.iter().map(word).collect()
    }
}

/// `.Name`, `.A.B`, `.`, or one of them after `json`.
fn field(action: &str) -> Result<Piece, String> {
    let (json, path) = match action.split_once(' ') {
        Some(("json", path)) => (true, path.trim()),
        _ => (false, action),
    };
    let names = path.strip_prefix('.').ok_or_else(|| unknown(action))?;
    let is_name = |name: &str| !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    let path: Vec<String> = if names.is_empty() { Vec::new() } else { names.split('.').map(str::to_owned).collect() };
    if path.iter().all(|name| is_name(name)) && (json || !path.is_empty()) {
        return Ok(Piece::Field { path, json });
    }
    Err(unknown(action))
}

fn unknown(action: &str) -> String {
    format!("`{{{{{action}}}}}` is not understood: fields are, as `{{{{.Name}}}}`, and `{{{{json .}}}}`")
}

/// Turns what is listed into rows.
///
/// # Errors
/// Never for what a list is made of; that is not for the type to say.
pub(crate) fn values(rows: impl Iterator<Item = impl Serialize>) -> Result<Vec<Value>, CliError> {
    rows.map(|row| serde_json::to_value(row).map_err(|error| CliError::Output(std::io::Error::other(error)))).collect()
}

fn find<'a>(row: &'a Value, path: &[String]) -> Result<&'a Value, CliError> {
    path.iter().try_fold(row, |value, name| {
        value.get(name).ok_or_else(|| {
            let known: Vec<&str> = value.as_object().into_iter().flatten().map(|(key, _)| key.as_str()).collect();
            CliError::NoField { name: name.clone(), known: known.join(", ") }
        })
    })
}

/// As Go's command lines: a shell passes `\t` on as two characters.
fn unescape(text: &str) -> String {
    text.replace("\\t", "\t").replace("\\n", "\n")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::cli::ui::Style;
    use crate::cli::ui::testing::ui;

    fn rows() -> Vec<Value> {
        let row = |name: &str, code| json!({"Name": name, "ExitCode": code, "Health": "", "Of": {"Port": 80}});
        vec![row("shop-web-1", 0), row("shop-database-1", 137)]
    }

    #[track_caller]
    fn show(template: &str) -> String {
        let ListFormat::Template(template) = ListFormat::parse(template).expect("a template") else { panic!("none") };
        let (mut ui, out, _) = ui(Style::Plain);
        template.print(&mut ui, &rows()).expect("printed");
        out.take()
    }

    #[test]
    fn fields_are_put_in_place() {
        assert_eq!(show("{{.Name}}"), "shop-web-1\nshop-database-1\n");
        assert_eq!(
            show("{{ .Name }}: {{.ExitCode}}{{.Health}} {{.Of.Port}}"),
            "shop-web-1: 0 80\nshop-database-1: 137 80\n"
        );
        assert_eq!(show("{{json .Name}} {{json .Of}}").lines().next(), Some(r#""shop-web-1" {"Port":80}"#));
        assert!(show("{{json .}}").starts_with(r#"{"Name":"shop-web-1","ExitCode":0"#));
        insta::assert_snapshot!(show("table {{.Name}}\\t{{.ExitCode}}"), @"
        NAME              EXIT CODE
        shop-web-1        0
        shop-database-1   137
        ");
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for wrong in
            ["{{range .}}", "{{if .Name}}x{{end}}", "{{.Name", "{{.Name | upper}}", "{{Name}}", "{{.}}", "names"]
        {
            assert!(ListFormat::parse(wrong).is_err(), "{wrong}");
        }
        let ListFormat::Template(template) = ListFormat::parse("{{.Nme}}").expect("a template") else { panic!("none") };
        let (mut ui, _, _) = ui(Style::Plain);
        let error = template.print(&mut ui, &rows()).expect_err("no such field").to_string();
        assert!(error.contains("`Nme`") && error.contains("Name, ExitCode"), "{error}");
        assert_eq!(ListFormat::parse("json"), Ok(ListFormat::Json));
    }
}
