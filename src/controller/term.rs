//! One term as leader: every watch and loop, started together and ended together.
#![expect(clippy::disallowed_types, reason = "Servers are watched")]

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use futures::channel::mpsc;
use futures::{Stream, StreamExt as _, TryStreamExt as _};
use kube::runtime::controller::{Action, Config, Controller, Error};
use kube::runtime::{WatchStreamExt as _, reflector, watcher};
use kube::{Api, Client, Resource as _};
use tokio::sync::watch as flag;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::context::Context;
use super::fleet::{Fleet, Guarded};
use super::leader::Leadership;
use super::namespaces::Namespaces;
use super::newest::Newest;
use super::reconcile;
use super::settings::ControllerSettings;
use super::watch_error::WatchErrors;
use super::work_queue::{Waits, places};
use super::{backlog, definition, feed, history, housekeeping, requester};
use crate::http::Readiness;
use crate::queue::Queue;

/// How long changes of one object are collected before it is reconciled. Short: each change of a spec waits so long.
const DEBOUNCE: Duration = Duration::from_millis(10);

/// Serves until `over`; returns when the last reconcile has ended.
pub(super) async fn serve(
    client: Client,
    queue: Queue,
    settings: ControllerSettings,
    leadership: Leadership,
    readiness: Readiness,
    over: CancellationToken,
) {
    let namespaces = Namespaces::new(&settings.namespaces);
    let mut fleet = Fleet::new(namespaces.clone());
    let newest = Arc::new(Newest::default());
    let mut controllers = Vec::new();
    for namespace in &settings.namespaces {
        let (wake, woken) = mpsc::unbounded();
        let servers = Api::<Guarded>::namespaced(client.clone(), namespace);
        let (reader, writer) = reflector::store();
        let (seen, synced) = flag::channel(false);
        let watch = watcher::watcher(servers, watcher::Config::default())
            .modify(|object| requester::slim(object.meta_mut()));
        let objects = reflector::reflector(writer, watch)
            .inspect({
                let newest = Arc::clone(&newest);
                move |event| match event {
                    Ok(watcher::Event::InitDone) => {
                        seen.send_replace(true);
                    }
                    Ok(watcher::Event::Delete(object)) => {
                        newest.forget(object.meta().uid.as_deref().unwrap_or_default());
                    }
                    _ => {}
                }
            })
            .applied_objects()
            // The reconcile that wrote went on from what it wrote; the store has it by now.
            .try_filter({
                let newest = Arc::clone(&newest);
                move |object| std::future::ready(!newest.is_echo(object.meta()))
            });
        let controller = Controller::for_stream(objects, reader)
            // All that it does is to say which Servers wait.
            .with_config(Config::default().concurrency(0).debounce(DEBOUNCE))
            .reconcile_on(woken)
            .graceful_shutdown_on(over.clone().cancelled_owned());
        fleet.add(namespace, controller.store(), synced, wake);
        controllers.push((namespace.clone(), controller));
    }
    let context = Arc::new(Context::new(client, queue, settings, leadership, (fleet, namespaces, newest)));
    let errors = |part, namespace: &str| WatchErrors::new(part, namespace, &context.namespaces, &readiness);
    let mut reconciles = JoinSet::new();
    for (namespace, controller) in controllers {
        let errors = errors("servers", &namespace);
        reconciles.spawn(control(namespace, controller, Arc::clone(&context), errors, over.clone()));
    }
    for serves in places(context.settings.concurrency) {
        reconciles.spawn(reconcile::run(Arc::clone(&context), serves));
    }
    let mut loops = JoinSet::new();
    for namespace in context.settings.namespaces.clone() {
        let errors = errors("secrets", &namespace);
        let context = Arc::clone(&context);
        loops.spawn(async move {
            if let Some(secrets) = context.secrets.get(&namespace) {
                secrets.watch(context.client.clone(), &namespace, &context.fleet, errors).await;
            }
        });
    }
    for namespace in context.settings.namespaces.clone() {
        let errors = errors("osimages", &namespace);
        let context = Arc::clone(&context);
        loops.spawn(async move {
            let concerned = (&context.fleet, &context.settings.wipe_images);
            context.images.watch(context.client.clone(), &namespace, concerned, errors).await;
        });
    }
    spawn_loops(&mut loops, &context, &readiness);
    let (shared, ready) = (Arc::clone(&context), readiness.clone());
    loops.spawn(async move { definition::watch(&shared, &ready).await });
    tokio::select! {
        // First of all: the others end with it.
        biased;
        () = over.cancelled() => {}
        // None of them ends by itself: whatever it was, the term begins anew.
        ended = loops.join_next() => tracing::error!(?ended, "a loop of the controller ended"),
        ended = reconciles.join_next() => tracing::error!(?ended, "a watch of the controller ended"),
    }
    over.cancel();
    context.work.close();
    loops.shutdown().await;
    // That is the next leader's to say.
    readiness.ready(history::DERIVATION);
    Namespaces::is_over(&readiness);
    backlog::is_over();
    for watched in ["servers", "secrets", "osimages", definition::PART] {
        readiness.is_over(watched);
    }
    readiness.hears_nothing();
    while let Some(ended) = reconciles.join_next().await {
        if let Err(error) = ended {
            tracing::error!(%error, "a watch of the controller panicked");
        }
    }
}

fn spawn_loops(loops: &mut JoinSet<()>, context: &Arc<Context>, readiness: &Readiness) {
    let (shared, ready) = (Arc::clone(context), readiness.clone());
    loops.spawn(async move { feed::run(&shared, &ready).await });
    let shared = Arc::clone(context);
    loops.spawn(async move {
        shared.sites.watch(&shared.queue, &shared.fleet, shared.settings.worker_lease).await;
    });
    let shared = Arc::clone(context);
    loops.spawn(async move {
        loop {
            for (namespace, name) in shared.work.due().await {
                shared.fleet.wake(&namespace, &name);
            }
        }
    });
    let shared = Arc::clone(context);
    loops.spawn(async move { backlog::watch(&shared).await });
    let shared = Arc::clone(context);
    loops.spawn(async move { housekeeping::run(&shared).await });
    let (shared, ready) = (Arc::clone(context), readiness.clone());
    loops.spawn(async move { shared.namespaces.watch(&shared, &ready).await });
    let (shared, ready) = (Arc::clone(context), readiness.clone());
    loops.spawn(async move { history::run(&shared, &ready).await });
    let (shared, ready) = (Arc::clone(context), readiness.clone());
    ready.waits("servers", "the first list");
    loops.spawn(async move {
        shared.fleet.synced().await;
        ready.ready("servers");
        std::future::pending::<()>().await;
    });
}

/// Runs the Controller of one namespace to its end.
async fn control(
    namespace: String,
    controller: Controller<Guarded>,
    context: Arc<Context>,
    mut errors: WatchErrors,
    over: CancellationToken,
) {
    let Some(secrets) = context.secrets.get(&namespace) else { return };
    // Before the first lists every credential and every image would look missing.
    let synced = async { tokio::join!(secrets.synced(), context.images.synced(&namespace)) };
    let mut changes = context.namespaces.changes();
    let only_deletions = changes.wait_for(|_| context.namespaces.only_deletions(&namespace));
    tokio::select! {
        _ = synced => {}
        // What is being deleted needs none of them, and nothing else is looked after.
        _ = only_deletions => {}
        () = over.cancelled() => return,
    }
    let results = controller.run(wait_for_turn, |_, error, _| match *error {}, Arc::clone(&context));
    let synced = || context.fleet.is_synced(&namespace);
    each(results, &over, synced, |result| match result {
        Ok(_) => errors.over(),
        Err(Error::QueueError(error)) => errors.tell(&error),
        // An object that is gone needs nothing.
        Err(Error::ReconcilerFailed(..) | Error::ObjectNotFound(_)) => {}
        Err(Error::RunnerError(error)) => {
            tracing::error!(namespace, %error, "the runner of reconciles failed");
        }
    })
    .await;
}

/// What kube-runtime calls where something may have happened to a Server: it waits for its turn from now on.
async fn wait_for_turn(object: Arc<Guarded>, context: Arc<Context>) -> Result<Action, Infallible> {
    let metadata = object.meta();
    if let (Some(namespace), Some(name)) = (&metadata.namespace, &metadata.name) {
        let who = object.0.as_ref().map_or(Waits::Rest, Waits::of);
        context.work.add((namespace.clone(), name.clone()), who);
    }
    Ok(Action::await_change())
}

/// Takes results until the last reconcile has ended. A Controller without its first list has begun none and waits for that
/// list even when it shall end: the watch is not read any more by then, so it is simply let go.
async fn each<T>(
    results: impl Stream<Item = T>,
    over: &CancellationToken,
    synced: impl Fn() -> bool,
    mut take: impl FnMut(T),
) {
    let mut results = std::pin::pin!(results);
    let mut asked = std::pin::pin!(over.cancelled());
    let mut is_over = false;
    loop {
        tokio::select! {
            result = results.next() => match result {
                Some(result) => take(result),
                None => return,
            },
            () = &mut asked, if !is_over => {
                if !synced() {
                    return;
                }
                is_over = true;
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, missing_docs)]
mod tests {
    use http::{Request, Response};
    use kube::client::Body;

    use super::*;

    /// An API server that never answers.
    fn silent() -> Client {
        let service = tower::service_fn(|_: Request<Body>| {
            std::future::pending::<Result<Response<Body>, std::convert::Infallible>>()
        });
        Client::new(service, "lab")
    }

    #[tokio::test]
    async fn a_term_that_ends_before_the_first_list_came_ends() {
        let over = CancellationToken::new();
        let (reader, writer) = reflector::store();
        let servers = Api::<Guarded>::namespaced(silent(), "lab");
        let objects = reflector::reflector(writer, watcher::watcher(servers, watcher::Config::default()));
        let controller = Controller::for_stream(objects.applied_objects(), reader)
            .graceful_shutdown_on(over.clone().cancelled_owned());
        let nothing = |_: Arc<Guarded>, _: Arc<()>| {
            std::future::ready(Ok::<_, std::fmt::Error>(Action::await_change()))
        };
        let results = controller.run(nothing, |_, _, _| Action::await_change(), Arc::new(()));
        over.cancel();
        let ended = tokio::time::timeout(Duration::from_secs(20), each(results, &over, || false, drop)).await;
        ended.unwrap();
    }
}
