//! Responds with the page for operators, and with what it shows beside the metrics.

use http::Request;

use super::{Service, json};
use crate::http::ops::{self, List, Ops};
use crate::http::reject::Reject;
use crate::http::response::{ResponseBody, ResponseState};

impl Service {
    pub(super) fn ops<B>(&self, ops: Ops, request: &Request<B>) -> ResponseState {
        let list = match ops {
            Ops::Page => {
                let page = ops::page(request.headers()).map(ResponseBody::Full);
                return self.conclude(Ok(page), false);
            }
            Ops::Nodes => {
                let nodes = ops::nodes(self.app.backplane.as_ref());
                return self.conclude(Ok(json(nodes)), false);
            }
            Ops::Orgs => List::Orgs,
            Ops::Topics => List::Topics,
        };
        match ops::order(request.uri()) {
            Ok(order) => self.list(list, order),
            Err(reject) => self.conclude(Err(reject), false),
        }
    }

    #[expect(
        clippy::async_yields_async,
        reason = "the response is polled in the place of the wait"
    )]
    fn list(&self, list: List, order: ops::Order) -> ResponseState {
        let (lists, app) = (&self.app.lists, &self.app);
        let mut ended = match lists.newest(&self.hub, app.clock) {
            Ok(texts) => return self.conclude(Ok(json(texts.get(list, order))), false),
            Err(ended) => ended,
        };
        let service = self.clone();
        ResponseState::Later(Box::pin(async move {
            // An error is an end, too.
            _ = ended.changed().await;
            let texts = service.app.lists.last();
            let response = texts.map(|texts| json(texts.get(list, order)));
            // A scan that does not end is one whose worker has ended.
            service.conclude(response.ok_or(Reject::Draining), false)
        }))
    }
}
