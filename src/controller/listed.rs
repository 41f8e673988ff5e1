//! What a watch has shown, by name: one value of each object, and which names changed.

use std::collections::HashMap;

use kube::ResourceExt;
use kube::runtime::watcher::Event;

/// The values that were seen, and what the present re-list has brought so far.
#[derive(Debug)]
pub(super) struct Listed<V> {
    seen: HashMap<String, V>,
    listing: Option<HashMap<String, V>>,
}

impl<V> Default for Listed<V> {
    fn default() -> Self {
        Self { seen: HashMap::new(), listing: None }
    }
}

impl<V: PartialEq> Listed<V> {
    pub(super) fn get(&self, name: &str) -> Option<&V> {
        self.seen.get(name)
    }

    /// Takes in one event; returns the names whose value changed. `value` reads an object; one without a value is passed
    /// over.
    pub(super) fn take<K: ResourceExt>(
        &mut self,
        event: Event<K>,
        value: impl Fn(&K) -> Option<V>,
    ) -> Vec<String> {
        match event {
            Event::Init => {
                self.listing = Some(HashMap::new());
                Vec::new()
            }
            Event::InitApply(object) => {
                if let (Some(listing), Some(value)) = (&mut self.listing, value(&object)) {
                    listing.insert(object.name_any(), value);
                }
                Vec::new()
            }
            Event::InitDone => {
                let now = self.listing.take().unwrap_or_default();
                let before = std::mem::replace(&mut self.seen, now);
                let names = before.keys().chain(self.seen.keys().filter(|name| !before.contains_key(*name)));
                names.filter(|name| before.get(*name) != self.seen.get(*name)).cloned().collect()
            }
            Event::Apply(object) => match value(&object) {
                Some(value) if self.seen.get(&object.name_any()) != Some(&value) => {
                    self.seen.insert(object.name_any(), value);
                    vec![object.name_any()]
                }
                _ => Vec::new(),
            },
            Event::Delete(object) => {
                let name = object.name_any();
                self.seen.remove(&name).map(|_| name).into_iter().collect()
            }
        }
    }
}

#[cfg(test)]
#[allow(missing_docs)]
mod tests {
    use k8s_openapi::api::core::v1::Secret;
    use kube::core::{ObjectMeta, PartialObjectMeta};

    use super::*;

    type Object = PartialObjectMeta<Secret>;

    fn object(name: &str, resource_version: &str) -> Object {
        let metadata = ObjectMeta {
            name: Some(name.into()),
            resource_version: Some(resource_version.into()),
            ..ObjectMeta::default()
        };
        PartialObjectMeta { metadata, ..PartialObjectMeta::default() }
    }

    fn take(listed: &mut Listed<String>, event: Event<Object>) -> Vec<String> {
        let mut names = listed.take(event, |object| object.metadata.resource_version.clone());
        names.sort();
        names
    }

    #[test]
    fn a_list_after_a_gap_shows_what_changed_in_between() {
        let mut listed = Listed::default();
        take(&mut listed, Event::Init);
        for name in ["kept", "changed", "gone"] {
            take(&mut listed, Event::InitApply(object(name, "1")));
        }
        assert_eq!(take(&mut listed, Event::InitDone).len(), 3);
        take(&mut listed, Event::Init);
        take(&mut listed, Event::InitApply(object("kept", "1")));
        take(&mut listed, Event::InitApply(object("changed", "2")));
        take(&mut listed, Event::InitApply(object("new", "1")));
        assert_eq!(take(&mut listed, Event::InitDone), ["changed", "gone", "new"]);
    }

    #[test]
    fn the_same_value_again_is_no_change() {
        let mut listed = Listed::default();
        assert_eq!(take(&mut listed, Event::Apply(object("a", "1"))), ["a"]);
        assert!(take(&mut listed, Event::Apply(object("a", "1"))).is_empty());
        assert_eq!(take(&mut listed, Event::Delete(object("a", "1"))), ["a"]);
        assert!(take(&mut listed, Event::Delete(object("a", "1"))).is_empty());
    }
}
