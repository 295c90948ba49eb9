//! ZenML's stacks and their components as its server sends them: 0.80 and later in `body` and `metadata`, 0.43 flat.
//!
//! A component's configuration may hold what is secret and no reference; only texts that could be references are kept.

use serde_json::Value;

use super::zenml_rest::Malformed;

/// A stack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StackItem {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its components, by their type.
    pub components: Vec<ComponentItem>,
}

/// A component of a stack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ComponentItem {
    /// Its id.
    pub id: String,
    /// Such as `experiment_tracker`.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// The attributes that could be references; `None` where the reply leaves the configuration out.
    pub texts: Option<Vec<(String, String)>>,
}

/// Reads a page of stacks.
pub fn stacks(json: &[u8]) -> Result<Vec<StackItem>, Malformed> {
    let page: Value = serde_json::from_slice(json).map_err(|_| Malformed)?;
    page["items"].as_array().ok_or(Malformed)?.iter().map(stack_of).collect()
}

/// Reads one stack.
pub fn stack(json: &[u8]) -> Result<StackItem, Malformed> {
    stack_of(&serde_json::from_slice(json).map_err(|_| Malformed)?)
}

/// Reads one component.
pub fn component(json: &[u8]) -> Result<ComponentItem, Malformed> {
    component_of(None, &serde_json::from_slice(json).map_err(|_| Malformed)?)
}

fn stack_of(stack: &Value) -> Result<StackItem, Malformed> {
    let by_kind = part(stack, "components").and_then(Value::as_object).ok_or(Malformed)?;
    let mut components = Vec::new();
    for (kind, items) in by_kind {
        for item in items.as_array().ok_or(Malformed)? {
            components.push(component_of(Some(kind), item)?);
        }
    }
    Ok(StackItem { id: text(stack, "id")?, name: text(stack, "name")?, components })
}

fn component_of(kind: Option<&str>, component: &Value) -> Result<ComponentItem, Malformed> {
    let kind = match kind {
        Some(kind) => kind.to_owned(),
        None => part(component, "type").and_then(Value::as_str).ok_or(Malformed)?.to_owned(),
    };
    let could_be_reference = |(name, value): (&String, &Value)| {
        let text = value.as_str().filter(|text| text.starts_with("{{"))?;
        Some((name.clone(), text.to_owned()))
    };
    let texts = match part(component, "configuration") {
        None | Some(Value::Null) => None,
        Some(configuration) => {
            Some(configuration.as_object().ok_or(Malformed)?.iter().filter_map(could_be_reference).collect())
        }
    };
    Ok(ComponentItem { id: text(component, "id")?, kind, name: text(component, "name")?, texts })
}

/// Finds a member where 0.80 and later put it, or where 0.43 did.
fn part<'v>(value: &'v Value, name: &str) -> Option<&'v Value> {
    ["metadata", "body"].iter().find_map(|place| value.get(place)?.get(name)).or_else(|| value.get(name))
}

fn text(value: &Value, name: &str) -> Result<String, Malformed> {
    value[name].as_str().map(str::to_owned).ok_or(Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stack_of_today_names_its_components_and_each_has_its_configuration_elsewhere() {
        let json = br#"{"items": [{"id": "1", "name": "gpu", "body": {}, "metadata": {"components": {
            "experiment_tracker": [{"id": "2", "name": "mlflow", "body": {"type": "experiment_tracker"}, "metadata": null}]
        }}}]}"#;
        let found = stacks(json).expect("a page");
        assert_eq!((found[0].name.as_str(), found[0].components[0].texts.as_ref()), ("gpu", None));
        let json = br#"{"id": "2", "name": "mlflow", "body": {"type": "experiment_tracker"}, "metadata": {"configuration":
            {"tracking_password": "{{mlflow_secret.password}}", "tracking_uri": "canary", "nested": {"a": "{{a.b}}"}}}}"#;
        let texts = component(json).expect("a component").texts.expect("its configuration");
        assert_eq!(texts, [("tracking_password".to_owned(), "{{mlflow_secret.password}}".to_owned())]);
    }

    #[test]
    fn a_stack_of_before_has_all_in_one() {
        let json = br#"{"id": "1", "name": "gpu", "components": {"artifact_store": [
            {"id": "2", "name": "s3", "type": "artifact_store", "configuration": {"key": "{{aws.key}}", "path": "s3://x"}}
        ]}}"#;
        let found = stack(json).expect("a stack");
        let texts = found.components[0].texts.as_ref().expect("its configuration");
        assert_eq!((found.components[0].kind.as_str(), texts.len()), ("artifact_store", 1));
    }

    #[test]
    fn what_is_no_stack_is_malformed() {
        for json in ["", "null", "[]", "{}", r#"{"items": {}}"#, r#"{"items": [{"id": "1", "name": "x"}]}"#] {
            assert!(stacks(json.as_bytes()).is_err(), "{json}");
        }
    }
}
