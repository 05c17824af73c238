//! The host's trees that take part in a transaction.

use crate::{
    error::{TransactionError, TreeProblem},
    store::engine::{
        generation::{Engine, HINTS, LOSSES, META, NODES},
        table::IVec,
    },
};

/// Checks that `trees` are the host's, in the database that holds our own.
pub fn check_trees(engine: &Engine, trees: &[sled::Tree]) -> Result<(), TransactionError> {
    let failed = |name: &IVec, problem: TreeProblem| {
        let tree = String::from_utf8_lossy(name).into_owned();
        Err(TransactionError::Tree { tree, problem })
    };
    let mut seen = Vec::with_capacity(trees.len());
    for tree in trees {
        let name = tree.name();
        if !engine.meta.is_beside(tree) {
            return failed(&name, TreeProblem::OtherDatabase);
        }
        if [META, NODES, HINTS, LOSSES]
            .iter()
            .any(|ours| name == ours.as_bytes())
        {
            return failed(&name, TreeProblem::Ours);
        }
        if seen.contains(&name) {
            return failed(&name, TreeProblem::Twice);
        }
        seen.push(name);
    }
    Ok(())
}
