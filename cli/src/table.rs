//! Records without values, as people and programs want them: table, JSON, YAML, CSV.

use serde::ser::{Serialize, SerializeMap as _, Serializer};
use serde_json::Value;

use crate::exit::Failure;
use crate::output::{columns, printable};

/// `--format` of the `secret` commands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TableFormat {
    /// Aligned columns with a heading.
    #[default]
    Table,
    /// A JSON array of objects.
    Json,
    /// A YAML list of mappings.
    Yaml,
    /// A line of names, then a line a record (RFC 4180, lines end in LF).
    Csv,
}

impl TableFormat {
    /// Reads the word behind `--format`.
    pub fn parse(word: &str) -> Result<Self, Failure> {
        match word {
            "table" => Ok(Self::Table),
            "json" => Ok(Self::Json),
            "yaml" => Ok(Self::Yaml),
            "csv" => Ok(Self::Csv),
            _ => Err(Failure::usage("`--format` is one of table, json, yaml, csv")),
        }
    }
}

/// Lays out `rows`, whose cells are in the order of `names`.
pub fn records(format: TableFormat, names: &[&str], rows: &[Vec<Value>]) -> String {
    match format {
        TableFormat::Table => {
            let heading = names.iter().map(|name| name.to_uppercase()).collect();
            let rows: Vec<Vec<String>> = rows.iter().map(|row| row.iter().map(for_people).collect()).collect();
            columns(&[vec![heading], rows].concat())
        }
        TableFormat::Json => json(&objects(names, rows)),
        TableFormat::Yaml => yaml(&objects(names, rows)),
        TableFormat::Csv => {
            let mut text = csv_line(names.iter().map(|name| (*name).to_owned()));
            for row in rows {
                text.push_str(&csv_line(row.iter().map(for_csv)));
            }
            text
        }
    }
}

/// Lays out one record: as a column of names and one of cells, or as one object.
pub fn record(format: TableFormat, names: &[&str], row: &[Value]) -> String {
    match format {
        TableFormat::Table => columns(
            &names.iter().zip(row).map(|(name, cell)| vec![(*name).to_owned(), for_people(cell)]).collect::<Vec<_>>(),
        ),
        TableFormat::Json => json(&Object { names, row }),
        TableFormat::Yaml => yaml(&Object { names, row }),
        TableFormat::Csv => records(format, names, &[row.to_vec()]),
    }
}

/// Writes one line of CSV; a cell is quoted where it must be.
pub fn csv_line(cells: impl Iterator<Item = String>) -> String {
    let quoted = |cell: String| {
        if cell.contains([',', '"', '\n', '\r']) { format!("\"{}\"", cell.replace('"', "\"\"")) } else { cell }
    };
    cells.map(quoted).collect::<Vec<_>>().join(",") + "\n"
}

/// One record as an object whose fields keep their order: names first, as people read.
struct Object<'a> {
    names: &'a [&'a str],
    row: &'a [Value],
}

impl Serialize for Object<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.names.len()))?;
        for (name, cell) in self.names.iter().zip(self.row) {
            map.serialize_entry(name, cell)?;
        }
        map.end()
    }
}

fn objects<'a>(names: &'a [&'a str], rows: &'a [Vec<Value>]) -> Vec<Object<'a>> {
    rows.iter().map(|row| Object { names, row }).collect()
}

fn json(value: &impl Serialize) -> String {
    serde_json::to_string_pretty(value).expect("strings, numbers and lists are always JSON") + "\n"
}

fn yaml(value: &impl Serialize) -> String {
    let text = serde_saphyr::to_string(value).expect("JSON values are YAML values");
    if text.ends_with('\n') { text } else { text + "\n" }
}

fn for_people(cell: &Value) -> String {
    match cell {
        Value::Null => "-".into(),
        other => printable(&for_csv(other)).into_owned(),
    }
}

fn for_csv(cell: &Value) -> String {
    match cell {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(for_csv).collect::<Vec<_>>().join(" "),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_format_holds_the_same_records() {
        let rows = [vec![json!("db, main"), json!(["a", "b"]), json!(null)], vec![json!("x"), json!([]), json!(3)]];
        let names = ["name", "keys", "age"];
        assert_eq!(
            records(TableFormat::Table, &names, &rows),
            "NAME      KEYS  AGE\ndb, main  a b   -\nx               3\n"
        );
        assert_eq!(records(TableFormat::Csv, &names, &rows), "name,keys,age\n\"db, main\",a b,\nx,,3\n");
        let read: Value = serde_json::from_str(&records(TableFormat::Json, &names, &rows)).expect("JSON");
        let yaml: Value = serde_saphyr::from_str(&records(TableFormat::Yaml, &names, &rows)).expect("YAML");
        assert_eq!(read[0]["keys"], json!(["a", "b"]));
        assert_eq!(read, yaml);
    }
}
