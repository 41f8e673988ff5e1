//! Which server tells a history. The nodes of a Galera cluster are one: what one of them has committed the next one has too,
//! once a causal read has waited for it, so a switch between them is no other history.

use sqlx::Row as _;
use sqlx::mysql::MySqlRow;

use super::QueueError;

/// A server, or a cluster whose nodes are one.
#[derive(Debug, Clone)]
pub(super) struct Identity {
    /// `@@server_uuid` (MySQL) or `@@server_id` (MariaDB).
    id: String,
    /// `wsrep_cluster_state_uuid`: another one begins with a cluster that was made anew.
    cluster: Option<String>,
}

impl PartialEq for Identity {
    fn eq(&self, other: &Self) -> bool {
        match (&self.cluster, &other.cluster) {
            (Some(own), Some(others)) => own == others,
            (None, None) => self.id == other.id,
            _ => false,
        }
    }
}

impl Eq for Identity {}

impl std::fmt::Display for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.cluster {
            Some(cluster) => write!(f, "cluster {cluster}"),
            None => write!(f, "server {}", self.id),
        }
    }
}

impl Identity {
    /// From the row that each connection is asked for first.
    pub(super) fn read(row: &MySqlRow, is_galera: bool) -> Result<Self, QueueError> {
        let cluster = if is_galera { row.try_get("cluster")? } else { None };
        Ok(Self { id: row.try_get("server")?, cluster })
    }

    #[cfg(test)]
    pub(super) fn of(id: &str, cluster: Option<&str>) -> Self {
        Self { id: id.to_owned(), cluster: cluster.map(str::to_owned) }
    }

    /// What row `history` of `meta` calls it, which the release before compares.
    pub(super) fn id(&self) -> &str {
        &self.id
    }

    /// What row `history_cluster` has of it; `None`: there is nothing to say.
    pub(super) fn cluster_row(&self) -> Option<String> {
        self.cluster.as_ref().map(|cluster| format!("{cluster} {}", self.id))
    }

    /// Whether it is the one that was seen last, by what the rows `history` (without its mark) and `history_cluster` have; `None`:
    /// nothing was seen yet. A cluster's row stands for what row `history` names beside it alone: where the release before has
    /// written there since, that is compared, as it does it.
    pub(super) fn was_seen_last(&self, history: &str, cluster: &str) -> Option<bool> {
        if history.is_empty() {
            return None;
        }
        let seen = cluster.split_once(' ').filter(|(_, id)| *id == history).map(|(cluster, _)| cluster);
        Some(match (&self.cluster, seen) {
            (Some(own), Some(seen)) => own == seen,
            _ => self.id == history,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nodes_of_one_cluster_are_one_and_servers_are_told_by_their_own_name() {
        let node = |id, cluster| Identity::of(id, Some(cluster));
        assert_eq!(node("1", "a"), node("2", "a"));
        assert_ne!(node("1", "a"), node("1", "b"));
        assert_ne!(Identity::of("1", None), Identity::of("2", None));
        assert_ne!(Identity::of("1", None), node("1", "a"));
    }

    #[test]
    fn a_switch_in_a_cluster_is_no_other_server_and_what_the_release_before_wrote_is_compared_as_it_does() {
        let node = Identity::of("2", Some("a"));
        for (history, cluster, same) in [
            ("", "", None),
            ("", "a 2", None),
            // Seen at another node.
            ("1", "a 1", Some(true)),
            // A cluster that was made anew.
            ("2", "b 2", Some(false)),
            // Before the upgrade, and a worker of the release before that entered since.
            ("2", "", Some(true)),
            ("1", "", Some(false)),
            ("1", "a 3", Some(false)),
            ("2", "b 1", Some(true)),
        ] {
            assert_eq!(node.was_seen_last(history, cluster), same, "{history:?} {cluster:?}");
        }
        let single = Identity::of("2", None);
        assert_eq!(single.was_seen_last("2", "b 2"), Some(true));
        assert_eq!(single.cluster_row(), None);
        assert_eq!(node.cluster_row().as_deref(), Some("a 2"));
    }
}
