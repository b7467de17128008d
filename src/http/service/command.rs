//! Responds to a [`Command`], and to a request to close a topic.

use http::Request;
use hyper::body::Incoming;

use super::Service;
use crate::http::auth::Grant;
use crate::http::command::{self, Command};
use crate::http::publish;
use crate::http::response::ResponseState;
use crate::http::topics;
use crate::ids::Topic;

impl Service {
    pub(super) fn command(
        &self,
        command: Command,
        grant: &Grant,
        request: Request<Incoming>,
    ) -> ResponseState {
        if let Err(reject) = command.check(&grant.orgs) {
            return self.conclude(Err(reject), false);
        }
        let (hub, app) = (self.hub.clone(), self.app.clone());
        let (limits, timer) = (self.body_limits(), self.timer());
        let window = self.app.config.reread_window;
        let (head, body) = request.into_parts();
        self.wait_for(async move {
            command::read(head.headers, body, limits, &timer).await?;
            command.run(app.publisher(&hub), app.clock.now(), window).await
        })
    }

    pub(super) fn close_topic(&self, topic: Topic, request: Request<Incoming>) -> ResponseState {
        let (hub, app) = (self.hub.clone(), self.app.clone());
        let (limits, timer) = (self.body_limits(), self.timer());
        let (head, body) = request.into_parts();
        self.wait_for(async move {
            let body = publish::read_if_any(head.headers, body, limits, &timer).await?;
            topics::close(app.publisher(&hub), &topic, body.bytes(), app.clock.now()).await
        })
    }
}
