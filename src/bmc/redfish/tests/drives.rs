//! Virtual media of BMCs with several drives, and with demands of their own.

use serde_json::{Value, json};

use super::maker::{Maker, Reply, Request, above, ok, refusal, status};
use super::*;
use crate::bmc::{Beside, ImageUrl, Media, OverrideTarget};

fn image() -> ImageUrl {
    ImageUrl::parse("http://192.0.2.9/s/0123456789/a.iso").unwrap()
}

/// What a drive answers to an insertion.
type Judge = fn(&Value) -> Option<Reply>;

/// Drives by path, and what they say to an insertion; the second half of a task after an accepted one.
struct Drives {
    all: Vec<(&'static str, Value)>,
    judge: Judge,
    task: Option<Value>,
    progress: Progress,
}

/// How far such a task is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Progress {
    /// At its end from the start.
    Over,
    /// Under way until a drive is looked at after its insertion was accepted.
    Late,
    Accepted,
}

fn drive(path: &str, image: &Value, more: &Value) -> Value {
    let mut value = json!({
        "Id": "x", "MediaTypes": ["CD", "DVD"], "Inserted": image.is_string(), "Image": image,
        "Actions": {"#VirtualMedia.InsertMedia": {"target": format!("{path}/in")},
                    "#VirtualMedia.EjectMedia": {"target": format!("{path}/out")}},
    });
    value.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    value
}

fn answer(drives: &mut Drives, request: &Request) -> Reply {
    if let Some(reply) = above(request) {
        return reply;
    }
    match request.path.as_str() {
        "/rf/one" => {
            return ok(
                &json!({"Id": "one", "PowerState": "Off", "Links": {"Managers": [{"@odata.id": "/rf/m"}]}}),
            );
        }
        "/rf/m" => return ok(&json!({"Id": "m", "VirtualMedia": {"@odata.id": "/rf/vm"}})),
        "/rf/vm" => {
            let links: Vec<_> = drives.all.iter().map(|(path, _)| json!({"@odata.id": path})).collect();
            return ok(&json!({"Members": links}));
        }
        "/rf/task" if drives.progress == Progress::Accepted => return ok(&json!({"TaskState": "Running"})),
        "/rf/task" => return ok(drives.task.as_ref().unwrap()),
        _ => {}
    }
    let Some((path, drive)) = drives.all.iter_mut().find(|(path, _)| request.path.starts_with(path)) else {
        return status(404);
    };
    if request.method == "GET" {
        if drives.progress == Progress::Accepted {
            drives.progress = Progress::Over;
        }
        return ok(drive);
    }
    if request.path == format!("{path}/out") {
        (drive["Image"], drive["Inserted"]) = (json!("None"), Value::Null);
        return status(204);
    }
    if let Some(refused) = (drives.judge)(&request.body) {
        return refused;
    }
    if drives.task.is_some() {
        if drives.progress == Progress::Late {
            drives.progress = Progress::Accepted;
        }
        return Reply { headers: vec![("location", "/rf/task".to_owned())], ..status(202) };
    }
    (drive["Image"], drive["Inserted"]) = (request.body["Image"].clone(), json!(true));
    status(204)
}

async fn with(all: Vec<(&'static str, Value)>, judge: Judge, task: Option<Value>) -> Maker {
    Maker::new(Drives { all, judge, task, progress: Progress::Over }, answer).await
}

async fn insert(maker: &Maker, connector: &Connector) -> (Box<dyn Bmc>, Result<(), BmcError>) {
    let bmc = maker.client_of(connector).await;
    bmc.probe().await.unwrap();
    bmc.media().await.unwrap();
    let done = bmc.send_with(RequestKind::InsertMedia, Beside::Image(&image()), LONG).await;
    (bmc, done)
}

#[tokio::test]
async fn the_drive_that_fetches_by_address_is_used_and_a_free_one_before_somebody_elses() {
    let fed_by_browser =
        json!({"Id": "1", "MediaTypes": ["CD"], "ConnectedVia": "Applet", "Inserted": false, "Actions": {}});
    let free = |path| drive(path, &Value::Null, &json!({}));
    let foreign = |path| drive(path, &json!("http://other/x.iso"), &json!({}));
    for all in [
        vec![("/rf/a", fed_by_browser.clone()), ("/rf/b", free("/rf/b"))],
        vec![("/rf/a", foreign("/rf/a")), ("/rf/b", free("/rf/b"))],
        vec![
            ("/rf/a", fed_by_browser),
            ("/rf/b", drive("/rf/b", &json!("None"), &json!({"Inserted": null}))),
        ],
    ] {
        let maker = with(all, |_| None, None).await;
        let connector = Connector::new(settings());
        let (bmc, done) = insert(&maker, &connector).await;
        done.unwrap();
        assert_eq!(maker.log.changes(), ["POST /rf/b/in"]);
        assert_eq!(bmc.media().await.unwrap(), Media::Inserted(Some(image().as_str().to_owned())));
        // Another claim finds it by what is in it, and takes out that one.
        let other = maker.client_of(&connector).await;
        other.probe().await.unwrap();
        let ours = |address: Option<&str>| address == Some(image().as_str());
        assert!(matches!(other.media_of(&ours).await.unwrap(), Media::Inserted(Some(_))));
        other.send(RequestKind::EjectMedia, LONG).await.unwrap();
        assert_eq!(maker.log.changes()[1..], ["POST /rf/b/out"]);
        assert_eq!(
            other.media_of(&ours).await.unwrap(),
            Media::Empty,
            "an image that is called None is none"
        );
    }
}

#[tokio::test]
async fn an_insertion_is_sent_again_with_what_the_bmc_wants_to_be_told_and_so_from_the_start_the_next_time() {
    let judges: [(Judge, &[&str]); 6] = [
        (
            |body| {
                let told = body.get("Inserted").is_some() || body.get("WriteProtected").is_some();
                told.then(|| Reply {
                    body: "The property Inserted is a read only property".to_owned(),
                    ..status(400)
                })
            },
            &["Image"],
        ),
        (
            |body| {
                let told = body.get("WriteProtected").is_some();
                told.then(|| {
                    refusal(400, "ActionParameterNotSupported", &["WriteProtected", "InsertMedia"], "")
                })
            },
            &["Image"],
        ),
        (
            |body| {
                let lacks = body.get("TransferProtocolType") != Some(&json!("HTTP"));
                lacks.then(|| {
                    refusal(400, "ActionParameterMissing", &["InsertMedia", "TransferProtocolType"], "")
                })
            },
            &["Image", "Inserted", "TransferProtocolType", "WriteProtected"],
        ),
        (
            |body| {
                let lacks = ["TransferProtocolType", "TransferMethod"]
                    .into_iter()
                    .find(|name| body.get(name).is_none());
                lacks.map(|name| refusal(400, "ActionParameterMissing", &["InsertMedia", name], ""))
            },
            &["Image", "Inserted", "TransferMethod", "TransferProtocolType", "WriteProtected"],
        ),
        (
            |body| {
                let lacks = body.get("UserName").is_none() || body.get("Password").is_none();
                lacks.then(|| refusal(400, "GeneralError", &[], "the action requires the parameter UserName"))
            },
            &["Image", "Inserted", "Password", "UserName", "WriteProtected"],
        ),
        (
            |body| {
                let wrong = body.get("Inserted").is_some() || body.get("TransferProtocolType").is_none();
                let missing = body.get("Inserted").is_none();
                wrong.then(|| {
                    if missing {
                        refusal(400, "ActionParameterMissing", &["InsertMedia", "TransferProtocolType"], "")
                    } else {
                        refusal(400, "PropertyNotWritable", &["Inserted"], "")
                    }
                })
            },
            &["Image", "TransferProtocolType"],
        ),
    ];
    for (judge, expected) in judges {
        let maker = with(vec![("/rf/a", drive("/rf/a", &Value::Null, &json!({})))], judge, None).await;
        let connector = Connector::new(settings());
        let (bmc, done) = insert(&maker, &connector).await;
        done.unwrap();
        let keys = |body: &Value| body.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
        let mut sent = keys(maker.log.bodies().last().unwrap());
        sent.sort();
        assert_eq!(sent, expected);
        bmc.send(RequestKind::EjectMedia, LONG).await.unwrap();
        maker.log.clear();
        insert(&maker, &connector).await.1.unwrap();
        assert_eq!(maker.log.changes(), ["POST /rf/a/in"], "it is learnt");
    }
}

#[tokio::test]
async fn what_a_bmc_refuses_for_another_reason_is_refused_after_few_tries() {
    let judges: [(Judge, usize); 3] = [
        (|_| Some(refusal(400, "ResourceCannotBeFound", &[], "the image cannot be read")), 1),
        (
            |_| {
                Some(refusal(
                    400,
                    "ActionParameterMissing",
                    &["InsertMedia", "UserName"],
                    "give UserName and Password",
                ))
            },
            2,
        ),
        (|_| Some(refusal(400, "GeneralError", &[], "something is wrong")), 2),
    ];
    for (judge, times) in judges {
        let maker = with(vec![("/rf/a", drive("/rf/a", &Value::Null, &json!({})))], judge, None).await;
        let error = insert(&maker, &Connector::new(settings())).await.1.unwrap_err();
        assert_eq!((&error.kind, error.delivery), (&BmcErrorKind::Refused, Delivery::Answered), "{error}");
        assert_eq!(maker.log.changes().len(), times, "{error}");
    }
}

#[tokio::test]
async fn the_task_of_an_insertion_tells_that_it_failed() {
    let said = json!([{"MessageId": "Base.1.8.GeneralError", "Message": "cannot mount the share"}]);
    let failed = json!({"Id": "7", "TaskState": "Exception", "TaskStatus": "Critical", "Messages": said});
    let maker = with(vec![("/rf/a", drive("/rf/a", &Value::Null, &json!({})))], |_| None, Some(failed)).await;
    let error = insert(&maker, &Connector::new(settings())).await.1.unwrap_err();
    assert_eq!((&error.kind, error.delivery), (&BmcErrorKind::Refused, Delivery::Answered));
    assert!(error.message.contains("cannot mount the share"), "{error}");
    let done = json!({"Id": "7", "TaskState": "Completed", "TaskStatus": "OK"});
    let maker = with(vec![("/rf/a", drive("/rf/a", &Value::Null, &json!({})))], |_| None, Some(done)).await;
    insert(&maker, &Connector::new(settings())).await.1.unwrap();
}

#[tokio::test]
async fn a_task_that_fails_later_tells_so_without_the_address_of_the_medium() {
    let token = "0123456789abcdef".repeat(4);
    let image = ImageUrl::parse(&format!("http://192.0.2.9/s/{token}/a.iso")).unwrap();
    let said = json!([{"MessageId": "Base.1.8.GeneralError", "Message": format!("cannot fetch {}", image.as_str())}]);
    let task = Some(json!({"TaskState": "Exception", "Messages": said}));
    let all = vec![("/rf/a", drive("/rf/a", &Value::Null, &json!({})))];
    let maker = Maker::new(Drives { all, judge: |_| None, task, progress: Progress::Late }, answer).await;
    let bmc = maker.client_of(&Connector::new(settings())).await;
    bmc.probe().await.unwrap();
    bmc.media().await.unwrap();
    let within = Duration::from_secs(3);
    bmc.send_with(RequestKind::InsertMedia, Beside::Image(&image), within).await.unwrap();
    let error = bmc.media().await.unwrap_err();
    assert_eq!(error.kind, BmcErrorKind::Refused, "{error}");
    assert!(!error.message.contains(&token), "{error}");
}

#[tokio::test]
async fn a_drive_that_does_not_fetch_by_http_is_not_offered_it() {
    let https = json!({"TransferProtocolType@Redfish.AllowableValues": ["HTTPS"]});
    let maker = with(vec![("/rf/a", drive("/rf/a", &Value::Null, &https))], |_| None, None).await;
    let error = insert(&maker, &Connector::new(settings())).await.1.unwrap_err();
    assert_eq!((&error.kind, error.delivery), (&BmcErrorKind::Unsupported, Delivery::NotSent));
    for part in ["HTTPS alone", "--boot-url"] {
        assert!(error.message.contains(part), "{error}");
    }
    assert!(!error.message.contains("  "), "{error}");
    assert!(maker.log.changes().is_empty());
}

#[tokio::test]
async fn a_supermicro_boots_its_virtual_cd_as_one_on_usb() {
    for (maker, model, expected) in [
        ("Supermicro", "SYS-1029P", "UsbCd"),
        ("Supermicro", "ARS-111GL-NHR", "Cd"),
        ("Example", "SYS-1029P", "Cd"),
    ] {
        let system = json!({"Id": "one", "PowerState": "Off", "Manufacturer": maker, "Model": model, "Boot": {
            "BootSourceOverrideTarget": expected, "BootSourceOverrideEnabled": "Once",
            "BootSourceOverrideTarget@Redfish.AllowableValues": ["Pxe", "Cd", "UsbCd"]}});
        let answer = move |(): &mut (), request: &Request| match above(request) {
            Some(reply) => reply,
            None if request.method == "GET" => ok(&system),
            None => status(204),
        };
        let bmc_of = Maker::new((), answer).await;
        let bmc = bmc_of.client().await;
        bmc.probe().await.unwrap();
        bmc.send(RequestKind::BootFromMediaOnce, LONG).await.unwrap();
        assert_eq!(bmc_of.log.bodies()[0]["Boot"]["BootSourceOverrideTarget"], expected);
        assert_eq!(bmc.boot_override().await.unwrap().target, OverrideTarget::Cd);
    }
}
