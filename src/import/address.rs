//! What people write for a BMC, in the spelling of `spec.bmc.address`. Pure.

use std::net::IpAddr;

use crate::api::bmc_address::{BmcAddress, BmcAddressError};

/// The address as it stands in a manifest, and what it means. Without a scheme it is Redfish over TLS.
pub(super) fn address(written: &str) -> Result<(String, BmcAddress), BmcAddressError> {
    let text = match written.split_once("://") {
        Some(("https", rest)) => format!("redfish+https://{rest}"),
        Some(("http", rest)) => format!("redfish+http://{rest}"),
        Some(_) => written.to_owned(),
        None => format!("redfish+https://{}", bare(written)),
    };
    let parsed = BmcAddress::parse(&text)?;
    Ok((text, parsed))
}

/// An inventory writes 10.20.0.11/24, and an IPv6 address without brackets.
fn bare(host: &str) -> String {
    let is_length = |rest: &str| rest.parse::<u8>().is_ok_and(|length| length <= 128);
    let ip = host.split_once('/').filter(|(_, rest)| is_length(rest)).map_or(host, |(ip, _)| ip);
    match ip.parse::<IpAddr>() {
        Ok(IpAddr::V4(ip)) => ip.to_string(),
        Ok(IpAddr::V6(ip)) => format!("[{ip}]"),
        Err(_) => host.to_owned(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, missing_docs)]
mod tests {
    use super::address;

    #[test]
    fn what_people_write_becomes_an_address() {
        for (written, text) in [
            ("10.20.0.11", "redfish+https://10.20.0.11"),
            ("10.20.0.11/24", "redfish+https://10.20.0.11"),
            ("2001:db8::1", "redfish+https://[2001:db8::1]"),
            ("bmc-01.example.com:8443", "redfish+https://bmc-01.example.com:8443"),
            ("https://bmc-01", "redfish+https://bmc-01"),
            ("https://10.0.0.1/redfish/v1/Systems/1", "redfish+https://10.0.0.1/redfish/v1/Systems/1"),
            ("ipmi://10.0.0.1", "ipmi://10.0.0.1"),
            ("10.0.0.1/redfish/v1/Systems/437X", "redfish+https://10.0.0.1/redfish/v1/Systems/437X"),
        ] {
            assert_eq!(address(written).unwrap().0, text, "{written}");
        }
        for written in ["", "admin:pw@10.0.0.1", "10.0.0.256", "ftp://a", "a b"] {
            let error = address(written).unwrap_err().to_string();
            assert!(!error.contains("pw"), "{error}");
        }
    }
}
