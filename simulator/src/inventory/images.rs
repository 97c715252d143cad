//! Images of items: one file each, by multipart upload.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde_json::Value;

use super::{Inventory, Module};
use crate::{
    exchange::{Answer, Request},
    finance::{Context, Outcome, Record, Refusal, done, invalid_url, text},
    ids::Ids,
    operations::Verb,
    outgoing::Operation,
};

/// Largest image (finance fact 5.3: 5 MB is common; unverified).
const MOST_BYTES: usize = 5 * 1024 * 1024;

/// A file as it was uploaded.
#[derive(Debug)]
pub(super) struct Image {
    name: String,
    kind: &'static str,
    bytes: Bytes,
}

impl Inventory {
    pub(super) fn image(&mut self, verb: Verb, context: &mut Context<'_>) -> Outcome {
        let id = context.id().to_owned();
        self.known(Module::Items, &id)?;
        match verb {
            Verb::Create => {
                let image = upload(context.request).ok_or_else(|| Refusal::invalid("image"))?;
                if image.bytes.len() > MOST_BYTES {
                    return Err(Refusal::invalid("image"));
                }
                self.set_image(&id, Some(image), context);
                Ok(done("The item image has been uploaded.", &id))
            }
            Verb::Get => {
                let image = self.images.get(&id).ok_or_else(|| Refusal::not_found("Image"))?;
                Ok(Answer::binary(image.kind, image.bytes.clone()).with_ids(vec![id]))
            }
            Verb::Delete => {
                self.images.get(&id).ok_or_else(|| Refusal::not_found("Image"))?;
                self.set_image(&id, None, context);
                Ok(done("The item image has been deleted.", &id))
            }
            _ => Err(invalid_url()),
        }
    }

    /// An item's image as a person sets it: its bytes in base64; anything else takes it away. Its name is the item's `image_name`.
    pub(super) fn image_by_hand(&mut self, id: &str, given: &Value, values: &mut Record, ids: &mut Ids) {
        let bytes = given.as_str().filter(|text| !text.is_empty()).and_then(|text| STANDARD.decode(text).ok());
        let name = Some(text(values, "image_name")).filter(|name| !name.is_empty()).unwrap_or("image.png").to_owned();
        let image = bytes.map(|bytes| Image { kind: kind_of(&name).unwrap_or("image/png"), name, bytes: bytes.into() });
        self.keep_image(id, image, values, ids);
    }

    /// A new image is a new document.
    fn keep_image(&mut self, id: &str, image: Option<Image>, values: &mut Record, ids: &mut Ids) {
        let (name, kind, document) = match &image {
            Some(image) => (image.name.clone(), image.kind.trim_start_matches("image/"), ids.record()),
            None => (String::new(), "", String::new()),
        };
        for (key, value) in
            [("image_name", name), ("image_type", kind.to_owned()), ("image_document_id", document.clone()), ("image_id", document)]
        {
            values.insert(key.to_owned(), value.into());
        }
        match image {
            Some(image) => self.images.insert(id.to_owned(), image),
            None => self.images.remove(id),
        };
    }

    fn set_image(&mut self, id: &str, image: Option<Image>, context: &mut Context<'_>) {
        let Ok(mut values) = self.known(Module::Items, id).map(|item| item.values.clone()) else { return };
        self.keep_image(id, image, &mut values, context.ids);
        self.replace(Module::Items, id, values, context.now);
        self.changed(Module::Items, id, Operation::Edit, context.zone(), context.changes);
    }
}

/// The media type of an image of this name.
fn kind_of(name: &str) -> Option<&'static str> {
    match name.rsplit('.').next()?.to_ascii_lowercase().as_str() {
        "png" => Some("image/png"),
        "jpg" | "jpeg" => Some("image/jpeg"),
        "gif" => Some("image/gif"),
        _ => None,
    }
}

/// The part named `image` of a multipart body.
fn upload(request: &Request) -> Option<Image> {
    let (_, boundary) = request.header("content-type")?.split_once("boundary=")?;
    let boundary = format!("--{}", boundary.trim_matches('"'));
    let body = &request.body;
    let start = find(body, boundary.as_bytes())? + boundary.len() + 2;
    let head_end = start + find(body.get(start..)?, b"\r\n\r\n")?;
    let head = std::str::from_utf8(body.get(start..head_end)?).ok()?;
    let end = head_end + 4 + find(body.get(head_end + 4..)?, format!("\r\n{boundary}").as_bytes())?;
    if parameter(head, "name")? != "image" {
        return None;
    }
    let name = parameter(head, "filename")?;
    let kind = kind_of(name)?;
    Some(Image { name: name.to_owned(), kind, bytes: body.slice(head_end + 4..end) })
}

/// `name="value"` of a part's head.
fn parameter<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = head.split_once(&format!(" {name}=\""))?;
    rest.split('"').next()
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}
