//! The examples of the book are what the types say.

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use umptcp_control::call::*;
use umptcp_control::message::{Code, EventLine, Greeting, MAX_REQUEST, PROTOCOL, Reply, Request, VERSION};

const PAGE: &str = include_str!("../../../docs/src/control.md");

/// The value survives the type: nothing in the example is unknown to it, misspelt or of another kind.
fn same<T: Serialize + DeserializeOwned>(value: &Value) -> T {
    let read: T = serde_json::from_value(value.clone()).unwrap_or_else(|error| panic!("{value}: {error}"));
    let written = serde_json::to_value(&read).expect("it can be written");
    for (name, part) in value.as_object().expect("an object") {
        assert_eq!(written.get(name), Some(part), "{name} of {value}");
    }
    read
}

fn check<C: Call>(params: &Value, result: Option<&Value>) {
    let params = if params.is_null() { Value::Object(Default::default()) } else { params.clone() };
    same::<C>(&params);
    if let Some(result) = result {
        same::<C::Reply>(result);
    }
}

fn check_call(method: &str, params: &Value, result: Option<&Value>) {
    let check = match method {
        ListConnections::METHOD => check::<ListConnections>,
        ListCounters::METHOD => check::<ListCounters>,
        ListPaths::METHOD => check::<ListPaths>,
        ListEndpoints::METHOD => check::<ListEndpoints>,
        AddEndpoint::METHOD => check::<AddEndpoint>,
        DeleteEndpoint::METHOD => check::<DeleteEndpoint>,
        ChangeEndpoint::METHOD => check::<ChangeEndpoint>,
        FlushEndpoints::METHOD => check::<FlushEndpoints>,
        GetLimits::METHOD => check::<GetLimits>,
        SetLimits::METHOD => check::<SetLimits>,
        ListWarnings::METHOD => check::<ListWarnings>,
        AddPath::METHOD => check::<AddPath>,
        RemovePath::METHOD => check::<RemovePath>,
        OpenSubflow::METHOD => check::<OpenSubflow>,
        CloseSubflow::METHOD => check::<CloseSubflow>,
        SetAlgorithms::METHOD => check::<SetAlgorithms>,
        CaptureCaller::METHOD => check::<CaptureCaller>,
        SummarizeRun::METHOD => check::<SummarizeRun>,
        Monitor::METHOD => check::<Monitor>,
        other => panic!("no method is named {other:?}"),
    };
    check(params, result);
}

#[test]
fn examples_are_of_the_protocol() {
    let mut asked: BTreeMap<u64, Request> = BTreeMap::new();
    let (mut documented, mut greetings) = (BTreeSet::new(), 0);
    for line in PAGE.lines() {
        let parse = |text: &str| {
            serde_json::from_str::<Value>(text).unwrap_or_else(|error| panic!("{text}: {error}"))
        };
        if let Some(sent) = line.strip_prefix("→ ") {
            let request: Request = same(&parse(sent));
            documented.insert(request.method.clone());
            assert!(asked.insert(request.id, request).is_none(), "{line}: the id is used twice");
        } else if let Some(said) = line.strip_prefix("← ") {
            let value = parse(said);
            if value.get("protocol").is_some() {
                let greeting: Greeting = same(&value);
                assert_eq!((greeting.protocol.as_str(), greeting.version), (PROTOCOL, VERSION));
                greetings += 1;
                continue;
            }
            let request = &asked[&value["id"].as_u64().expect("an id")];
            if value.get("event").is_some() {
                let event: EventLine = same(&value);
                same::<umptcp_control::state::Event>(&value["event"]);
                assert_eq!(request.method, "monitor", "{}", event.id);
            } else {
                let reply: Reply = same(&value);
                assert!(reply.result.is_some() != reply.error.is_some(), "{line}");
                check_call(&request.method, &request.params, reply.result.as_ref());
            }
        }
    }
    assert_eq!(greetings, 1);
    let all: BTreeSet<String> = METHODS.iter().map(|m| (*m).to_owned()).collect();
    assert_eq!(documented, all, "each method has an example");
}

#[test]
fn codes_and_limits_are_documented() {
    let codes = [
        Code::BadRequest,
        Code::TooLong,
        Code::UnknownMethod,
        Code::BadParameters,
        Code::NotFound,
        Code::Exists,
        Code::NotSupported,
        Code::Denied,
        Code::Failed,
        Code::TooManyClients,
        Code::TooSlow,
        Code::Ending,
    ];
    for code in codes {
        let name = serde_json::to_value(code).expect("a name");
        let row = format!("| `{}` |", name.as_str().expect("text"));
        assert!(PAGE.contains(&row), "{row}");
    }
    assert!(PAGE.contains(&format!("{} KiB", MAX_REQUEST >> 10)));
    #[cfg(all(unix, not(umptcp_portable)))]
    {
        let options = umptcp_control::ServerOptions::default();
        assert!(PAGE.contains(&format!("| {} clients are connected", options.max_clients)));
        assert_eq!(options.slow.as_secs(), 5, "\"for five seconds\"");
    }
}
