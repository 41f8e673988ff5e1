//! What the API server refuses, and what `kubectl` prints about it.

use e2e::fleet::Fleet;

use crate::says;

/// A manifest with `more` lines below `spec`.
fn manifest(fleet: &Fleet, more: &str) -> String {
    let namespace = fleet.namespace();
    let bmc = if more.contains("bmc:") {
        ""
    } else {
        "  bmc:\n    address: redfish+https://192.0.2.1\n    credentialsRef:\n      name: bmc\n"
    };
    format!(
        "apiVersion: autobuild.dev/v1alpha1\nkind: Server\nmetadata:\n  name: one\n  namespace: {namespace}\n\
         spec:\n{bmc}{more}"
    )
}

fn bmc(more: &str) -> String {
    format!("  bmc:\n    address: redfish+https://192.0.2.1\n    credentialsRef:\n      name: bmc\n{more}")
}

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_names_the_field_and_the_values_that_are_right() {
    let fleet = Fleet::start(1).await.unwrap();
    let kubectl = fleet.kubectl();
    let digits = "aa".repeat(32);
    let table: &[(String, &[&str])] = &[
        ("  power: Up\n".into(), &["spec.power", "\"Up\"", "PoweredOn", "PoweredOff"]),
        // Without quotes YAML reads a truth value.
        ("  power: On\n".into(), &["spec.power", "PoweredOn", "PoweredOff"]),
        ("  shutdownMode: Hard\n".into(), &["spec.shutdownMode", "\"Hard\"", "Graceful", "Forced"]),
        ("  deletionPolicy: Keep\n".into(), &["spec.deletionPolicy", "Retain", "PowerOff"]),
        ("  priority: Now\n".into(), &["spec.priority", "Urgent", "Low"]),
        (format!("  rebootToken: {}\n", "x".repeat(129)), &["spec.rebootToken", "128"]),
        (format!("  site: {}\n", "x".repeat(64)), &["spec.site", "63"]),
        (
            format!(
                "  bmc:\n    address: redfish+https://{}\n    credentialsRef: {{name: bmc}}\n",
                "x".repeat(512)
            ),
            &["spec.bmc.address", "512"],
        ),
        (
            "  bmc:\n    address: 192.0.2.1\n    credentialsRef: {name: bmc}\n".into(),
            &["spec.bmc", "address is written redfish+https://HOST[:PORT]"],
        ),
        (
            "  bmc:\n    address: redfish+https://a\n    credentialsRef: {name: other/bmc}\n".into(),
            &["spec.bmc.credentialsRef.name", "other/bmc"],
        ),
        (
            bmc(&format!("    tls:\n      verify: Disabled\n      certificateSHA256: \"{digits}\"\n")),
            &["spec.bmc.tls", "exactly one of caRef, certificateSHA256 and verify"],
        ),
        (bmc("    tls:\n      verify: \"No\"\n"), &["spec.bmc.tls.verify", "Disabled"]),
        (bmc("    tls:\n      certificateSHA256: abc\n"), &["spec.bmc.tls.certificateSHA256"]),
    ];
    for (more, parts) in table {
        let text = manifest(&fleet, more);
        let output = kubectl.output_with_input(&["apply", "-f", "-"], &text).await.unwrap();
        assert!(!output.success, "{text}");
        says(&output.stderr, parts).expect(&text);
    }
    assert!(fleet.servers().get_opt("one").await.unwrap().is_none());
    kubectl.run_with_input(&["apply", "-f", "-"], &manifest(&fleet, "  site: here\n")).await.unwrap();
    let moved = manifest(&fleet, "  site: there\n");
    let output = kubectl.output_with_input(&["apply", "-f", "-"], &moved).await.unwrap();
    assert!(!output.success);
    says(&output.stderr, &["spec.site", "site cannot be changed", "Retain"]).unwrap();
    fleet.end().await.unwrap();
}
