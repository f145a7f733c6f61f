//! Which trees the cache has room for. Synchronous.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::Known;
use super::tree::Tree;
use crate::domain::ImageId;

/// A tree that was used within this time does not make room for a new tree. Otherwise, where more functions are called
/// in turn than the cache has room for, each tree would go before its next use, and each call would make a tree.
const IN_USE: Duration = Duration::from_secs(3600);

/// Whether one more tree of the usual size has room, or there is a tree that was not used for long.
pub(super) fn has_room(known: &HashMap<ImageId, Known>, budget: u64, now: SystemTime) -> bool {
    let trees = known.values().filter_map(|known| match known {
        Known::Ready(tree, used) => Some((tree.size(), *used)),
        Known::Making { .. } | Known::Unfit { .. } => None,
    });
    let (mut count, mut total, mut oldest) = (0, 0, now);
    for (size, used) in trees {
        (count, total, oldest) = (count + 1, total + size, oldest.min(used));
    }
    count == 0 || total + total / count <= budget || oldest + IN_USE <= now
}

/// Forgets the trees that were not used for the longest time, while all trees are over the budget. Returns these trees.
pub(super) fn surplus(known: &mut HashMap<ImageId, Known>, budget: u64) -> Vec<Arc<Tree>> {
    let mut ready: Vec<(SystemTime, ImageId, u64)> = known
        .iter()
        .filter_map(|(image, known)| match known {
            Known::Ready(tree, used) => Some((*used, image.clone(), tree.size())),
            Known::Making { .. } | Known::Unfit { .. } => None,
        })
        .collect();
    ready.sort_by_key(|&(used, ..)| used);
    let mut total: u64 = ready.iter().map(|&(.., size)| size).sum();
    let mut gone = Vec::new();
    for (_, image, size) in ready {
        if total <= budget {
            break;
        }
        total -= size;
        if let Some(Known::Ready(tree, _)) = known.remove(&image) {
            gone.push(tree);
        }
    }
    gone
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::functions::trees::FOLDERS;
    use crate::resources::clock;

    #[test]
    fn a_tree_makes_room_once_the_tree_was_not_used_for_long() {
        let dir = tempfile::tempdir().unwrap();
        let ready = |name: &str, used| {
            let draft = dir.path().join("draft");
            FOLDERS.iter().for_each(|name| std::fs::create_dir_all(draft.join(name)).unwrap());
            let tree = Tree::complete(&draft, dir.path().join(name), "runtime", Vec::new()).unwrap();
            Known::Ready(Arc::new(tree), used)
        };
        let (began, image) = (clock::at(1_000_000_000), |digit: &str| format!("sha256:{}", digit.repeat(64)));
        let image = |digit| ImageId::parse(&image(digit)).unwrap();
        let mut known = HashMap::new();
        assert!(has_room(&known, 1, began), "the size of trees is not known yet");
        known.insert(image("0"), ready("a", began));
        known.insert(image("1"), ready("b", began + IN_USE));
        known.insert(image("2"), Known::Unfit { runtime: "runtime".to_owned() });
        let Known::Ready(tree, _) = &known[&image("0")] else { panic!("a tree") };
        let size = tree.size();
        assert!(has_room(&known, 3 * size, began));
        assert!(!has_room(&known, 3 * size - 1, began + IN_USE / 2));
        assert!(has_room(&known, 3 * size - 1, began + IN_USE));
    }
}
