//! ZenML's variables, those joined that ZenML had to split.

use std::collections::BTreeMap;

use zeroize::Zeroizing;

use crate::environment::Environment;
use crate::mistake::Mistake;

/// Between a variable's name and the number of its part (`env_utils.py`, 0.98).
const CHUNK: &str = "_CHUNK_";

/// Every variable whose name begins with `ZENML_`.
pub(super) struct Variables(BTreeMap<String, Zeroizing<String>>);

impl Variables {
    /// Takes them from the environment. As in ZenML, parts go before a whole variable of the name; unlike there, parts
    /// with a gap are a mistake, and so is a value that is not UTF-8.
    pub(super) fn of(environment: &Environment, mistakes: &mut Vec<Mistake>) -> Self {
        let mut whole = BTreeMap::new();
        let mut parts: BTreeMap<String, BTreeMap<usize, Zeroizing<String>>> = BTreeMap::new();
        for (name, value) in environment.iter() {
            let Some(name) = name.to_str().filter(|name| name.starts_with("ZENML_")) else { continue };
            let Some(value) = value.to_str() else {
                // A path may be anything, and is looked up apart from these.
                if !matches!(name, super::CONFIG_PATH | super::LOCAL_STORES_PATH) && is_ours(name) {
                    mistakes.push(Mistake::of_variable(name, "is not UTF-8"));
                }
                continue;
            };
            let value = Zeroizing::new(value.to_owned());
            match part_of(name) {
                Some((base, number)) => drop(parts.entry(base.to_owned()).or_default().insert(number, value)),
                None => drop(whole.insert(name.to_owned(), value)),
            }
        }
        for (name, parts) in parts {
            if let Some(missing) = (0..parts.len()).find(|number| !parts.contains_key(number)) {
                if is_ours(&name) {
                    let what = "is not set, but later parts of the same value are";
                    mistakes.push(Mistake::of_variable(&format!("{name}{CHUNK}{missing}"), what));
                }
                continue;
            }
            let mut value = Zeroizing::new(String::with_capacity(parts.values().map(|part| part.len()).sum()));
            parts.values().for_each(|part| value.push_str(part));
            whole.insert(name, value);
        }
        Self(whole)
    }

    /// Returns a variable's text, the empty one too.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(|value| value.as_str())
    }

    /// Returns a variable's text that is not empty.
    pub(super) fn filled(&self, name: &str) -> Option<&str> {
        self.get(name).filter(|text| !text.is_empty())
    }

    /// Returns the variables of a prefix: the rest of the name in lower case, the whole name, the value.
    pub(super) fn of_prefix(&self, prefix: &str) -> Vec<(String, String, Zeroizing<String>)> {
        let own = self.0.iter().filter_map(|(name, value)| Some((name.strip_prefix(prefix)?, name, value)));
        own.map(|(rest, name, value)| (rest.to_ascii_lowercase(), name.clone(), value.clone())).collect()
    }
}

/// `NAME_CHUNK_3` -> (`NAME`, 3).
fn part_of(name: &str) -> Option<(&str, usize)> {
    let (rest, number) = name.split_at_checked(name.len().checked_sub(1)?)?;
    Some((rest.strip_suffix(CHUNK)?, number.parse().ok()?))
}

/// Tells whether anything here reads the variable: another one's fault is no business of ours.
fn is_ours(name: &str) -> bool {
    super::PREFIXES.iter().chain(super::SINGLE).any(|ours| name.starts_with(ours))
}
