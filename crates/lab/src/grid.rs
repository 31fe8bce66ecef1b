//! The combinations of parameters that a scenario is run with.

use crate::error::{LabError, Source};
use crate::scenario::Values;
use std::collections::BTreeMap;

/// Combinations of parameters of one scenario.
const MOST_POINTS: usize = 10_000;

/// Names and values that go together.
type Row = Vec<(String, String)>;

/// The parameters of a table, with their values, in the order of their names.
type Columns = Vec<(String, Vec<String>)>;

/// Every combination of the values of `[parameters]`, the last parameter varying fastest, with every row of
/// each `[[zipped]]`. `set` has values in the place of those in the text.
pub(crate) fn grid(source: &Source<'_>, set: &[(String, String)]) -> Result<Vec<Row>, LabError> {
    // Only the parameters: everything else may not make sense before they are filled in.
    let table: toml::Table = toml::from_str(source.text).map_err(|e| source.parser(&e))?;
    let parameters = match table.get("parameters") {
        None => Columns::new(),
        Some(value) => columns(source, "parameters", value)?,
    };
    let zipped: Vec<Columns> = match table.get("zipped") {
        None => Vec::new(),
        Some(toml::Value::Array(groups)) => {
            groups.iter().map(|g| columns(source, "zipped", g)).collect::<Result<_, _>>()?
        }
        Some(_) => return Err(source.whole("zipped: it is a list of tables; write [[zipped]]")),
    };
    let all: Vec<&str> =
        parameters.iter().chain(zipped.iter().flatten()).map(|(name, _)| name.as_str()).collect();
    for (at, name) in all.iter().enumerate() {
        if all[..at].contains(name) {
            return Err(source.whole(format!("parameter {name:?} stands in more than one place")));
        }
    }
    if let Some((name, _)) = set.iter().find(|(name, _)| !all.contains(&name.as_str())) {
        return Err(
            source.whole(format!("there is no parameter {name:?} to set; there are: {}", all.join(", ")))
        );
    }
    let mut grid: Vec<Row> = vec![Vec::new()];
    for (name, values) in parameters {
        let values = given(source, &name, values, set)?;
        let rows: Vec<Row> = values.into_iter().map(|v| vec![(name.clone(), v)]).collect();
        grid = product(source, &grid, &rows)?;
    }
    for group in zipped {
        grid = product(source, &grid, &zip(source, group, set)?)?;
    }
    Ok(grid)
}

fn columns(source: &Source<'_>, what: &str, value: &toml::Value) -> Result<Columns, LabError> {
    let map: BTreeMap<String, Values> = value
        .clone()
        .try_into()
        .map_err(|e: toml::de::Error| source.whole(format!("{what}: {}", e.message())))?;
    let text = |v: Values| match v {
        Values::One(v) => vec![v.to_string()],
        Values::Many(list) => list.iter().map(ToString::to_string).collect(),
    };
    Ok(map.into_iter().map(|(name, values)| (name, text(values))).collect())
}

/// The values of a parameter: those of the text unless others are set.
fn given(
    source: &Source<'_>,
    name: &str,
    values: Vec<String>,
    set: &[(String, String)],
) -> Result<Vec<String>, LabError> {
    if !source.text.contains(&format!("${{{name}}}")) {
        return Err(source.whole(format!("parameter {name:?} is used nowhere; use it as \"${{{name}}}\"")));
    }
    let given: Vec<String> = set
        .iter()
        .filter(|(n, _)| *n == name)
        .flat_map(|(_, v)| v.split(',').map(|v| v.trim().to_string()))
        .collect();
    let values = if given.is_empty() { values } else { given };
    if values.iter().any(|v| v.contains(['\n', '\r', '"', '\\', '$'])) {
        return Err(source.whole(format!("parameter {name:?}: a value has a character that it may not have")));
    }
    Ok(values)
}

/// The first values of all parameters of a group, the second values, and so on. One that has a single value
/// has it in all rows.
fn zip(source: &Source<'_>, group: Columns, set: &[(String, String)]) -> Result<Vec<Row>, LabError> {
    let group: Columns = group
        .into_iter()
        .map(|(name, values)| Ok((name.clone(), given(source, &name, values, set)?)))
        .collect::<Result<_, LabError>>()?;
    let rows = group.iter().map(|(_, values)| values.len()).max().unwrap_or(0);
    if let Some((name, values)) = group.iter().find(|(_, v)| v.len() != rows && v.len() != 1) {
        return Err(source.whole(format!(
            "zipped: {name:?} has {} values, and another of its group has {rows}: they go together",
            values.len()
        )));
    }
    let row = |at: usize| {
        let value = |values: &[String]| values.get(at).or(values.first()).cloned().unwrap_or_default();
        group.iter().map(|(name, values)| (name.clone(), value(values))).collect()
    };
    Ok((0..rows).map(row).collect())
}

/// Each point with each of the rows.
fn product(source: &Source<'_>, points: &[Row], rows: &[Row]) -> Result<Vec<Row>, LabError> {
    if points.len().saturating_mul(rows.len()) > MOST_POINTS {
        return Err(source.whole(format!("the parameters have more than {MOST_POINTS} combinations")));
    }
    let with = |point: &Row| rows.iter().map(|row| [&point[..], &row[..]].concat()).collect::<Vec<_>>();
    Ok(points.iter().flat_map(with).collect())
}
