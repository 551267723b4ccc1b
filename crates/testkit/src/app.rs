//! The service behind its router, with a database of its own and a clock that stands still.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use http::{Method, Request, Response, header};
use http_body_util::combinators::{BoxBody, UnsyncBoxBody};
use http_body_util::{BodyExt, Full};
use jiff::Timestamp;
use tempfile::TempDir;
use tower::ServiceExt;
use weir_accounts::{Account, Accounts, KeyOptions, Nanos, Price, Role};
use weir_engine::Engine;
use weir_gateway::limits::Quotas;
use weir_gateway::{Catalog, Clock, Gateway, Offer, Rules, TierRule};
use weir_inference::sim::{self, SimModel, SimOptions};
use weir_server::{App, Options, Route};

use crate::{Answer, Scripted};

/// The time of the clock, in seconds since 1970: 2026-11-22T12:00:00Z.
pub const NOW: i64 = 1_795_348_800;

pub type Body = BoxBody<Bytes, Infallible>;
/// The body of an answer that is still arriving.
pub type StreamBody = UnsyncBoxBody<Bytes, String>;

/// The state that a [`TestApp`] starts with.
#[derive(Debug)]
pub struct Setup {
    pub offers: Vec<Offer>,
    /// Limits of every key.
    pub quotas: Quotas,
    pub tiers: Vec<TierRule>,
    pub credit: Nanos,
    pub options: Options,
    /// Routes besides the service's own.
    pub routes: &'static [Route],
}

impl Default for Setup {
    /// The models `sim/chat`, `sim/plain` (without a chat template) and `sim/down` (without an engine).
    fn default() -> Self {
        let plain = SimModel::new(SimOptions {
            chat: false,
            ..SimOptions::default()
        });
        Setup {
            offers: vec![
                offer("sim/chat", Some(SimModel::new(SimOptions::default()))),
                offer("sim/plain", Some(plain)),
                offer("sim/down", None),
            ],
            quotas: Quotas::default(),
            tiers: Vec::new(),
            credit: Nanos::from_usd(5).unwrap(),
            options: Options::default(),
            routes: &[],
        }
    }
}

/// An offer of a simulated model.
pub fn offer(id: &str, model: Option<SimModel>) -> Offer {
    offer_of(
        id,
        model.map(|model| Arc::new(sim::engine_with(model)) as Arc<dyn Engine>),
    )
}

/// An offer of the engine.
pub fn offer_of(id: &str, engine: Option<Arc<dyn Engine>>) -> Offer {
    Offer {
        id: id.to_owned(),
        created: NOW,
        title: format!("The model {id}"),
        description: "A simulated model".to_owned(),
        price: Price {
            input: 200,
            output: 400,
            cached: None,
        },
        max_output_tokens: Some(1024),
        engines: engine.into_iter().collect(),
    }
}

#[derive(Debug)]
pub struct TestApp {
    pub app: App,
    pub accounts: Accounts,
    pub account: Account,
    /// A key of `account`, which may use every model.
    pub key: String,
    routes: &'static [Route],
    _folder: TempDir,
}

impl TestApp {
    pub async fn new() -> Self {
        TestApp::start(Setup::default()).await
    }

    /// An app with this engine behind `sim/chat` and `sim/plain`.
    pub async fn scripted(engine: &Scripted) -> Self {
        let engine = || Some(Arc::new(engine.clone()) as Arc<dyn Engine>);
        TestApp::start(Setup {
            offers: vec![
                offer_of("sim/chat", engine()),
                offer_of("sim/plain", engine()),
            ],
            ..Setup::default()
        })
        .await
    }

    pub async fn start(setup: Setup) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let options = weir_accounts::Options::new(folder.path().join("weir.db"), Role::Server);
        let accounts = Accounts::open(options, now()).await.unwrap();
        let account = accounts.add_account("test", now()).await.unwrap();
        if setup.credit.is_positive() {
            accounts
                .credit(&account.id, setup.credit, "first", "for tests", now())
                .await
                .unwrap();
        }
        let key = accounts.add_key(&account.id, None, now()).await.unwrap();
        let catalog = Catalog::new(setup.offers);
        let rules = Rules {
            tiers: setup.tiers,
            ..Rules::from(setup.quotas)
        };
        let gateway = Gateway::new(catalog, accounts.clone(), rules, Clock::from_fn(now));
        let app = App::new(gateway, setup.options, next);
        TestApp {
            app,
            accounts,
            account,
            key: key.secret.expose().to_owned(),
            routes: setup.routes,
            _folder: folder,
        }
    }

    /// Makes another key of the account.
    pub async fn key_with(&self, options: KeyOptions) -> String {
        self.accounts
            .add_key_with(&self.account.id, options, now())
            .await
            .unwrap()
            .secret
            .expose()
            .to_owned()
    }

    /// Sends a request unchanged, and returns the answer as soon as its head is there.
    pub async fn open(&self, request: Request<Body>) -> Response<StreamBody> {
        let routes = weir_server::routes().chain(self.routes);
        let router = weir_server::router_with(self.app.clone(), routes);
        let response = router.oneshot(request).await.unwrap();
        response.map(|body| body.map_err(|error| error.to_string()).boxed_unsync())
    }

    /// Sends a request unchanged, and reads the answer.
    pub async fn send(&self, request: Request<Body>) -> Answer {
        Answer::read(self.open(request).await).await
    }

    /// Posts a body with the app's key.
    pub async fn post(&self, path: &str, body: impl Into<Bytes>) -> Answer {
        self.send(self.request(Method::POST, path, body)).await
    }

    /// Gets a path without a key.
    pub async fn get(&self, path: &str) -> Answer {
        self.send(Request::get(path).body(body("")).unwrap()).await
    }

    /// A request with the app's key.
    pub fn request(&self, method: Method, path: &str, body: impl Into<Bytes>) -> Request<Body> {
        let bearer = format!("Bearer {}", self.key);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::AUTHORIZATION, bearer);
        request.body(self::body(body)).unwrap()
    }
}

pub fn body(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).boxed()
}

/// The time of a [`TestApp`]'s clock.
pub fn now() -> Timestamp {
    Timestamp::from_second(NOW).unwrap()
}

/// Request ids for tests, which only have to differ.
fn next() -> u128 {
    static LAST: AtomicU64 = AtomicU64::new(0);
    u128::from(LAST.fetch_add(1, Ordering::Relaxed))
}
