//! What stands between a worker and a BMC. No Redfish client yet: what it may log in with, and where it may connect.

pub mod credentials;
pub mod network;
