//! The network card that a machine boots from.

use crate::api::Mac;

/// What is said of a card that spec names and the machine does not have, as far as its BMC tells.
pub fn not_its_card(mac: &Mac, told: &[Mac]) -> String {
    let told: Vec<String> = told.iter().map(Mac::with_colons).collect();
    format!(
        "spec.bootMACAddress {} is no network card of this machine: its BMC tells of {}; correct it, or leave it out for the \
         first one",
        mac.with_colons(),
        told.join(", ")
    )
}
