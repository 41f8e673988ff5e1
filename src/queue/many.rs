//! Several rows in one statement. Numbers of rows are rounded, so that a connection prepares few texts.

use crate::job::ServerUid;

/// Rows of one statement at most, and calls of one batch: two batches of 128 cost a tenth more than one of 256.
pub(super) const MOST: usize = 256;

/// The numbers of rows that statements are written for.
const SIZES: [usize; 7] = [1, 4, 16, 32, 64, 128, MOST];

/// Keys in groups of a few sizes, the last key repeated as often as needed: for `IN` and `OR`, where a key may stand
/// twice.
pub(super) fn filled<T: Clone>(keys: &[T]) -> impl Iterator<Item = Vec<T>> {
    keys.chunks(MOST).map(|chunk| {
        let mut group = chunk.to_vec();
        if let Some(last) = chunk.last() {
            let size = SIZES.into_iter().find(|size| *size >= chunk.len()).unwrap_or(MOST);
            group.resize(size, last.clone());
        }
        group
    })
}

/// Rows in groups of a few sizes: for `INSERT`, where no row may stand twice.
pub(super) fn groups<T>(rows: &[T]) -> impl Iterator<Item = &[T]> {
    let mut left = rows;
    std::iter::from_fn(move || {
        let size = SIZES.into_iter().rev().find(|size| *size <= left.len())?;
        let (group, rest) = left.split_at(size);
        left = rest;
        Some(group)
    })
}

/// `what`, so many times.
pub(super) fn times(what: &str, count: usize, between: &str) -> String {
    let mut text = String::with_capacity(count * (what.len() + between.len()));
    for number in 0..count {
        if number > 0 {
            text.push_str(between);
        }
        text.push_str(what);
    }
    text
}

/// `?, ?, ?` for an `IN` list.
pub(super) fn marks(count: usize) -> String {
    times("?", count, ", ")
}

/// In the order in which rows are locked, none twice.
pub(super) fn in_lock_order<'a>(uids: impl Iterator<Item = &'a ServerUid>) -> Vec<&'a str> {
    let mut uids: Vec<&str> = uids.map(ServerUid::as_str).collect();
    uids.sort_unstable();
    uids.dedup();
    uids
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_of_few_sizes_and_lose_nothing() {
        for count in 0..700_usize {
            let rows: Vec<usize> = (0..count).collect();
            let grouped: Vec<&[usize]> = groups(&rows).collect();
            assert!(grouped.iter().all(|group| SIZES.contains(&group.len())));
            assert_eq!(grouped.concat(), rows);
            let mut repeated: Vec<usize> = filled(&rows).flatten().collect();
            repeated.dedup();
            assert_eq!(repeated, rows);
            assert!(filled(&rows).all(|group| SIZES.contains(&group.len())));
        }
    }
}
