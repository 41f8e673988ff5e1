#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use proptest::prelude::*;

use super::*;

fn normalised(text: &str) -> String {
    BmcAddress::parse(text).unwrap().normalised()
}

#[test]
fn the_default_port_of_each_scheme_is_filled_in() {
    for (text, expected) in [
        ("redfish+https://bmc.example", "redfish+https://bmc.example:443"),
        ("redfish+http://192.0.2.7/", "redfish+http://192.0.2.7:80"),
        ("ipmi://[2001:DB8::1]", "ipmi://[2001:db8::1]:623"),
    ] {
        assert_eq!(normalised(text), expected);
    }
}

#[test]
fn differently_spelled_addresses_of_one_system_are_equal() {
    let one = BmcAddress::parse("redfish+https://bmc.example:443/redfish/v1/Systems/A1").unwrap();
    for text in [
        "REDFISH+HTTPS://BMC.Example/redfish/v1/Systems/A1/",
        "redfish+https://bmc.example./redfish/v1/Systems/A1",
        "redfish+https://bmc.example:0443/redfish/v1/Systems/A1",
    ] {
        assert_eq!(BmcAddress::parse(text).unwrap(), one, "{text}");
    }
    assert_eq!(normalised("redfish+https://[::ffff:192.0.2.7]"), normalised("redfish+https://192.0.2.7"));
}

#[test]
fn the_case_of_a_system_id_is_kept_and_no_path_claims_the_whole_host() {
    let key = BmcAddress::parse("redfish+https://B/redfish/v1/Systems/aB").unwrap().claim_key();
    assert_eq!((key.host.as_str(), key.system.as_str()), ("b:443", "aB"));
    assert_eq!(BmcAddress::parse("redfish+https://b").unwrap().claim_key().system, "");
}

#[test]
fn what_is_not_an_address_is_refused_by_kind() {
    use std::mem::discriminant;
    let s = String::new;
    let cases = [
        ("bmc.example", BmcAddressError::Scheme(s())),
        ("https://bmc.example", BmcAddressError::Scheme(s())),
        ("redfish+https://root:calvin@bmc.example", BmcAddressError::UserInfo),
        ("root:calvin@bmc.example", BmcAddressError::UserInfo),
        ("redfish+https://bmc.example?x=1", BmcAddressError::QueryOrFragment(s())),
        ("redfish+https://bmc.example/#x", BmcAddressError::QueryOrFragment(s())),
        ("redfish+https://", BmcAddressError::Host(s())),
        ("redfish+https://bücher.example", BmcAddressError::Host(s())),
        ("redfish+https://127.1", BmcAddressError::Host(s())),
        ("redfish+https://0x7f.0x1", BmcAddressError::Host(s())),
        ("redfish+https://2001:db8::1", BmcAddressError::Host(s())),
        ("redfish+https://[fe80::1%eth0]", BmcAddressError::Host(s())),
        ("redfish+https://a..b", BmcAddressError::Host(s())),
        ("redfish+https://bmc.example:0", BmcAddressError::Port(s())),
        ("redfish+https://bmc.example:+443", BmcAddressError::Port(s())),
        ("redfish+https://bmc.example:70000", BmcAddressError::Port(s())),
        ("redfish+https://bmc.example:", BmcAddressError::Port(s())),
        ("redfish+https://b/redfish/v1/Systems/..", BmcAddressError::Path(s())),
        ("redfish+https://b/redfish/v1/Systems/%2e%2e", BmcAddressError::Path(s())),
        ("redfish+https://b/redfish/v1/Systems/a/b", BmcAddressError::Path(s())),
        ("redfish+https://b/redfish/v1", BmcAddressError::Path(s())),
        ("ipmi://b/redfish/v1/Systems/1", BmcAddressError::Path(s())),
    ];
    for (text, expected) in cases {
        let error = BmcAddress::parse(text).expect_err(text);
        assert_eq!(discriminant(&error), discriminant(&expected), "{text}: {error}");
        assert!(!error.to_string().contains("calvin"), "{error}");
    }
    assert_eq!(
        BmcAddress::parse(&format!("redfish+https://{}", "a".repeat(600))),
        Err(BmcAddressError::TooLong(616))
    );
}

proptest! {
    #[test]
    fn parsing_the_display_gives_the_same_address_and_spelling_changes_nothing(
        scheme in prop::sample::select(vec!["redfish+https", "redfish+http", "ipmi"]),
        host in prop_oneof![
            "[a-z]([a-z0-9-]{0,10}[a-z0-9])?(\\.[a-z]([a-z0-9-]{0,8}[a-z0-9])?){0,3}",
            any::<[u8; 4]>().prop_map(|o| std::net::Ipv4Addr::from(o).to_string()),
            any::<u128>().prop_map(|n| format!("[{}]", Ipv6Addr::from(n))),
        ],
        port in prop::option::of(1u16..),
        id in prop::option::of("[A-Za-z0-9][A-Za-z0-9._~:+=,@-]{0,20}"),
    ) {
        let port = port.map_or(String::new(), |p| format!(":{p}"));
        let path = id.filter(|_| scheme != "ipmi").map_or(String::new(), |id| format!("{SYSTEMS}{id}"));
        let one = BmcAddress::parse(&format!("{scheme}://{host}{port}{path}")).unwrap();
        prop_assert_eq!(&BmcAddress::parse(&one.to_string()).unwrap(), &one);
        let shouted = format!("{}://{}{port}{path}/", scheme.to_ascii_uppercase(), host.to_ascii_uppercase());
        prop_assert_eq!(BmcAddress::parse(&shouted).unwrap(), one);
    }

    #[test]
    fn no_text_makes_the_parser_panic(text in "\\PC{0,80}", tail in "[\\PC]{0,40}") {
        let _ = BmcAddress::parse(&text);
        let _ = BmcAddress::parse(&format!("redfish+https://{tail}"));
    }
}
