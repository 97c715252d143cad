//! The `key` expressions of watches, over the images that capture kept.

use std::collections::BTreeMap;

use serde_json::Value;
use sluice_sync::definition::Watch;
use sluice_sync::read::Reader;

/// An image and the keys that its row concerns, or why the expression failed on it.
pub(super) type Found<'a> = (&'a Value, Result<Vec<String>, String>);

/// Evaluates the expression once per distinct image. An image on which it fails fails alone.
pub(super) async fn keys<'a>(reader: &Reader, watch: &Watch, images: &[&'a Value]) -> Result<Vec<Found<'a>>, sqlx::Error> {
    let distinct: BTreeMap<String, &Value> = images.iter().map(|image| (image.to_string(), *image)).collect();
    let mut found = Vec::with_capacity(distinct.len());
    for image in distinct.into_values() {
        found.push((image, reader.watched_keys(watch, image).await?));
    }
    Ok(found)
}
