//! Images on their way from one engine to another.

use bollard::query_parameters::{ImportImageOptionsBuilder, ListImagesOptionsBuilder};
use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, future, stream};
use tokio::sync::mpsc;

use super::{DockerEngine, SLOW_ANSWER_WITHIN, Tried, error};
use crate::engine::{BoxStream, EngineError, Result};

/// Pieces of an archive that wait for the one who takes them.
const PIECES: usize = 16;
/// Images that are looked at at the same time.
const AT_ONCE: usize = 16;

impl DockerEngine {
    pub(super) fn save_archive(&self, reference: &str) -> BoxStream<'static, Result<Bytes>> {
        self.count("image_save");
        let (docker, reference, socket) = (self.patient(SLOW_ANSWER_WITHIN), reference.to_owned(), self.socket.clone());
        let (to, from) = mpsc::channel(PIECES);
        // Ends when nobody takes the pieces any more.
        tokio::spawn(async move {
            let tried = Tried::new("save image", &reference).what("image").at(&socket);
            let mut pieces = std::pin::pin!(docker.export_image(&reference));
            while let Some(piece) = pieces.next().await {
                if to.send(piece.map_err(|source| error::classify(source, &tried))).await.is_err() {
                    return;
                }
            }
        });
        stream::unfold(from, |mut from| async move { from.recv().await.map(|piece| (piece, from)) }).boxed()
    }

    pub(super) async fn load_pieces(&self, archive: BoxStream<'static, std::io::Result<Bytes>>) -> Result<()> {
        let docker = self.patient(SLOW_ANSWER_WITHIN);
        let options = ImportImageOptionsBuilder::default().quiet(true).build();
        let answers = docker.import_image(options, bollard::body_try_stream(archive), None);
        let done = answers.try_for_each(|answer| async move {
            match answer.error_detail.and_then(|detail| detail.message) {
                Some(error) => Err(bollard::errors::Error::DockerStreamError { error }),
                None => Ok(()),
            }
        });
        self.call("image_load", Tried::new("load an image archive", ""), done).await
    }

    pub(super) async fn layers_of(&self, reference: &str) -> Result<Vec<String>> {
        let tried = Tried::new("look for image", reference).what("image");
        let image = self.call("image_inspect", tried, self.docker.inspect_image(reference)).await?;
        Ok(image.root_fs.and_then(|root| root.layers).unwrap_or_default())
    }

    pub(super) async fn layers_of_all(&self) -> Result<Vec<Vec<String>>> {
        let options = ListImagesOptionsBuilder::default().build();
        let listed = self.docker.list_images(Some(options));
        let images = self.call("image_list", Tried::new("list images", ""), listed).await?;
        let layers = stream::iter(images).map(|image| async move { self.layers_of(&image.id).await });
        // One that is removed meanwhile has none.
        let layers = layers
            .buffer_unordered(AT_ONCE)
            .filter(|layers| future::ready(!matches!(layers, Err(EngineError::NotFound { .. }))));
        layers.try_collect().await
    }
}
