//! Requests and commands of these tests only, for a service in this process.

use reqwest::Method;
use reqwest::multipart::{Form, Part};
use serde_json::Value;

use crate::support::*;

impl TestApp {
    /// Submits a zip as a new version of a function. The update may fail.
    pub(crate) async fn update(&self, function: &Deployed, zip: Vec<u8>) -> Answer {
        let form = Form::new().part("code", Part::bytes(zip).file_name("function.zip"));
        answer(self.request(Method::PUT, &format!("/api/functions/{}", function.id)).multipart(form)).await
    }

    /// Changes a function's name or settings.
    pub(crate) async fn configure(&self, function: &Deployed, change: Value) -> Answer {
        answer(self.request(Method::PATCH, &format!("/api/functions/{}", function.id)).json(&change)).await
    }

    /// Rolls a function back; `query` is empty or `?version=N`.
    pub(crate) async fn roll_back(&self, function: &Deployed, query: &str) -> Answer {
        answer(self.request(Method::POST, &format!("/api/functions/{}/rollback{query}", function.id))).await
    }

    /// The names of this platform's containers, without the containers that check the isolation at the start.
    pub(crate) fn containers(&self) -> Vec<String> {
        self.all_containers().into_iter().filter(|name| !name.starts_with("youtube-serverless-check-")).collect()
    }

    /// The name of the image of a function's first version.
    pub(crate) fn image_name(&self, function: &Deployed) -> String {
        format!("youtube-serverless/{}:{}-1", function.id, self.platform)
    }
}
