//! What a change means for the data, whatever the text looks like.

use super::ChangeError;
use crate::document::value::{Value, ValueError};
use crate::document::{Kind, Node};
use crate::sops::path::{Step, TreePath};

/// The data of a node with merge keys as the keys that they are. What an alias stands for is left out.
pub(super) fn tree(node: &Node) -> Result<Value, ValueError> {
    Ok(match &node.kind {
        Kind::Alias(_) => Value::Null,
        Kind::Scalar { .. } => Value::of(node, &std::collections::HashMap::new())?,
        Kind::Sequence(items) => Value::Sequence(items.iter().map(tree).collect::<Result<_, _>>()?),
        Kind::Mapping(entries) => {
            let entry =
                |(key, value): &(Node, Node)| Ok((key.text().unwrap_or_default().to_owned(), tree(value)?));
            Value::Mapping(entries.iter().map(entry).collect::<Result<_, ValueError>>()?)
        }
    })
}

/// Puts `value` at `path`.
pub(super) fn set(root: &mut Value, path: &TreePath, value: &Value) -> Result<(), ChangeError> {
    let mut at = root;
    for (depth, step) in path.steps().iter().enumerate() {
        let rest = &path.steps()[depth + 1..];
        at = match (at, step) {
            (Value::Mapping(entries), Step::Key(key)) => {
                let Some(found) = entries.iter().position(|(name, _)| name == key) else {
                    entries.push((key.clone(), nested(rest, value)));
                    return Ok(());
                };
                &mut entries[found].1
            }
            (Value::Sequence(items), Step::Index(index)) => {
                if *index >= items.len() {
                    items.push(nested(rest, value));
                    return Ok(());
                }
                &mut items[*index]
            }
            (Value::Mapping(_), Step::Index(_)) => return Err(kind(path, depth, "a mapping")),
            (Value::Sequence(_), Step::Key(_)) => return Err(kind(path, depth, "a list")),
            (scalar, _) => {
                *scalar = nested(&path.steps()[depth..], value);
                return Ok(());
            }
        };
    }
    *at = value.clone();
    Ok(())
}

/// Takes out what stands at `path`.
pub(super) fn unset(root: &mut Value, path: &TreePath) -> Result<(), ChangeError> {
    let mut at = root;
    for (depth, step) in path.steps().iter().enumerate() {
        let last = depth + 1 == path.steps().len();
        let missing = || ChangeError::Missing { path: path.up_to(depth + 1) };
        at = match (at, step) {
            (Value::Mapping(entries), Step::Key(key)) => {
                let found = entries.iter().position(|(name, _)| name == key).ok_or_else(missing)?;
                if last {
                    entries.remove(found);
                    return Ok(());
                }
                &mut entries[found].1
            }
            (Value::Sequence(items), Step::Index(index)) => {
                if *index >= items.len() {
                    return Err(missing());
                }
                if last {
                    items.remove(*index);
                    return Ok(());
                }
                &mut items[*index]
            }
            (Value::Mapping(_), Step::Index(_)) => return Err(missing()),
            (Value::Sequence(_), Step::Key(_)) => return Err(kind(path, depth, "a list")),
            (scalar, _) => return Err(kind(path, depth, scalar.kind())),
        };
    }
    Ok(())
}

/// `value` below what `steps` make.
pub(super) fn nested(steps: &[Step], value: &Value) -> Value {
    steps.iter().rev().fold(value.clone(), |value, step| match step {
        Step::Key(key) => Value::Mapping(vec![(key.clone(), value)]),
        Step::Index(_) => Value::Sequence(vec![value]),
    })
}

fn kind(path: &TreePath, depth: usize, kind: &'static str) -> ChangeError {
    ChangeError::Kind { path: path.up_to(depth + 1), kind }
}
