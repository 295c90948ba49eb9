//! Puts the values where they belong: the child's environment block and the step's files. All or nothing: whatever
//! cannot be injected is complained about before a file is written.

use keyside_protocol::reference::Reference;
use keyside_protocol::value::SecretValue;

use crate::deny;
use crate::environment::{Block, Inherited, Slot};
use crate::files::{self, FileName, Files, Kind};
use crate::limits::{self, Sized};
use crate::plan::Plan;
use crate::report::Complaint;
use crate::resolve::{Answers, is_passed_through};
use crate::sys;

/// Composes the environment block, and writes the files if there are any.
pub(crate) fn inject(
    plan: &Plan,
    inherited: &Inherited,
    answers: &Answers,
    place: Option<&Files>,
) -> Result<Block, Vec<Complaint>> {
    let mut complaints = Vec::new();
    let mut block = Block::default();
    let value_of = |reference: &Reference| answers.value(reference);

    for slot in &inherited.slots {
        match slot {
            Slot::Kept(entry) => block.keep(entry),
            Slot::Reference { name, reference } => {
                // In place, without looking back: a second entry of the same name stays a second entry.
                // expose: into the child's environment block.
                let value = answers.value(reference).expose();
                if is_free_of_nul(name, value, &mut complaints) {
                    block.append(name, value);
                }
            }
        }
    }
    inject_secrets(plan, inherited, answers, &mut block, &mut complaints);
    for variable in &plan.variables {
        let counts = plan.variable(&variable.name).is_some_and(|last| std::ptr::eq(last, variable));
        if !counts || is_passed_through(plan, inherited, &variable.name) {
            continue;
        }
        match variable.text.render(value_of) {
            // expose: into the child's environment block.
            Ok(value) if is_free_of_nul(&variable.name, value.expose(), &mut complaints) => {
                block.set(&variable.name, value.expose());
            }
            Ok(_) => {}
            Err(error) => {
                let called = String::from_utf8_lossy(&variable.name);
                complaints.push(Complaint::new(
                    format!("the variable {called}: {error}"),
                    "leave the filter out, or mend the value",
                ));
            }
        }
    }

    let files = contents(plan, answers, &mut complaints);
    if let Some(place) = place {
        for file in &plan.files {
            if let Some(variable) = &file.variable {
                block.set(variable.as_bytes(), place.path_of(&file.name).as_os_str().as_encoded_bytes());
            }
        }
        if let Some(path) = place.directory() {
            block.set(b"KEYSIDE_FILES", path.as_os_str().as_encoded_bytes());
        }
    }
    if plan.place.kind == Kind::Memfd {
        // One that was inherited leads to another step's files.
        block.remove(b"KEYSIDE_FILES");
    }
    complaints.extend(check_sizes(plan, &block));
    if !complaints.is_empty() {
        return Err(complaints);
    }
    if let Some(place) = place {
        let _limit = sys::FileSizeFails::begin();
        for (name, content) in &files {
            place.write(name, content).map_err(|complaint| vec![complaint])?;
        }
    }
    Ok(block)
}

/// Complains about a value that no environment can hold; tells whether it may be set.
fn is_free_of_nul(name: &[u8], value: &[u8], complaints: &mut Vec<Complaint>) -> bool {
    if !value.contains(&0) {
        return true;
    }
    complaints.push(Complaint::new(
        format!(
            "the value for the variable {} holds a NUL byte, which no environment can",
            String::from_utf8_lossy(name)
        ),
        "hand it over as a file: --file NAME=TEMPLATE, or --file-env VAR=TEMPLATE",
    ));
    false
}

fn inject_secrets(
    plan: &Plan,
    inherited: &Inherited,
    answers: &Answers,
    block: &mut Block,
    complaints: &mut Vec<Complaint>,
) {
    for bulk in &plan.secrets {
        for (key, value) in answers.secret(&bulk.name).iter() {
            let name = format!("{}{key}", bulk.prefix);
            if plan.sets(name.as_bytes()) || is_passed_through(plan, inherited, name.as_bytes()) {
                continue;
            }
            let origin = &bulk.name;
            if !deny::is_variable_name(&name) {
                complaints.push(Complaint::new(
                    format!("{} is no variable name (a key of {origin})", quoted(&name)),
                    "use --env VAR={{name.key}} for the keys you need, or --secret-files NAME",
                ));
            } else if deny::is_denied(&name) {
                let by_name = format!("--env {name}='{{{{{origin}.{key}}}}}'");
                let hint = if deny::is_denied_by_its_end(&name) {
                    format!("it steers programs, whatever stands before it; set it by name: {by_name}")
                } else if bulk.prefix.is_empty() {
                    format!(
                        "it steers programs; give a prefix (--secret PREFIX={origin}), or set it by name: {by_name}"
                    )
                } else {
                    format!("it steers programs; give another prefix, or set it by name: {by_name}")
                };
                let what = format!("the variable {name} may not be set by a whole secret (a key of {origin})");
                complaints.push(Complaint::new(what, hint));
            // expose: into the child's environment block.
            } else if is_free_of_nul(name.as_bytes(), value.expose(), complaints) {
                block.set(name.as_bytes(), value.expose());
            }
        }
    }
}

fn quoted(name: &str) -> String {
    if name.is_empty() { "the empty key".to_owned() } else { name.to_owned() }
}

fn contents(plan: &Plan, answers: &Answers, complaints: &mut Vec<Complaint>) -> Vec<(FileName, SecretValue)> {
    let mut contents = Vec::new();
    for file in &plan.files {
        match file.text.render(|reference| answers.value(reference)) {
            Ok(content) => contents.push((file.name.clone(), content)),
            Err(error) => complaints.push(Complaint::new(
                format!("the file {}: {error}", file.name),
                "leave the filter out, or mend the value",
            )),
        }
    }
    for secret in &plan.secret_files {
        for (key, value) in answers.secret(secret).iter() {
            match FileName::of_key(secret, key) {
                // expose: into the content of a file of the step.
                Ok(name) => contents.push((name, SecretValue::copy_of(value.expose()))),
                Err(error) => complaints.push(Complaint::new(
                    format!("no file can be called as the key {key} of {secret}: {error}"),
                    "use --file NAME={{name.key}} for the keys you need",
                )),
            }
        }
    }
    complaints.extend(files::check_together(contents.iter().map(|(name, _)| name)));
    contents
}

fn check_sizes(plan: &Plan, block: &Block) -> Vec<Complaint> {
    let ours: Vec<Sized> = block
        .ours()
        .map(|(name, length)| Sized { called: format!("the variable {}", String::from_utf8_lossy(name)), length })
        .collect();
    let (mut count, mut bytes) = block.inherited_size();
    count += plan.command.len();
    bytes += plan.command.iter().map(|word| word.count_bytes()).sum::<usize>();
    limits::check(&ours, (count, bytes))
}
