//! Responds to publishes, once their bodies are read.

use http::Request;
use hyper::body::Incoming;

use super::Service;
use crate::config::Config;
use crate::http::auth::Grant;
use crate::http::publish::{self, BodyLimits};
use crate::http::response::ResponseState;
use crate::ids::{OrgName, Topic};

/// What a publish is for.
pub(super) enum Target {
    Org(OrgName),
    Topic(Topic),
    /// What each of its lines names.
    Lines,
}

impl Service {
    pub(super) fn body_limits(&self) -> BodyLimits {
        let Config { publish_bytes_max, body_timeout, .. } = self.app.config;
        let budget = self.body_budget.clone();
        BodyLimits { bytes_max: publish_bytes_max, timeout: body_timeout, budget }
    }

    pub(super) fn publish(
        &self,
        target: Target,
        grant: Grant,
        request: Request<Incoming>,
    ) -> ResponseState {
        let (hub, app) = (self.hub.clone(), self.app.clone());
        let (limits, timer) = (self.body_limits(), self.timer());
        let (head, body) = request.into_parts();
        let allowed = publish::content_type(matches!(target, Target::Lines));
        self.wait_for(async move {
            let body = publish::read(head.headers, body, allowed, limits, &timer).await?;
            let publisher = app.publisher(&hub);
            let now = app.clock.now();
            let published = match target {
                Target::Org(org) => publish::publish_one(publisher, &org, body.bytes(), now),
                Target::Topic(topic) => {
                    publish::publish_message(publisher, &topic, body.bytes(), now)
                }
                Target::Lines => publish::publish_batch(publisher, body.bytes(), &grant, now),
            };
            // The body counts in its connection's budget until it is in the log: its lines are as large.
            let response = published?.respond(publisher).await;
            drop(body);
            response
        })
    }
}
