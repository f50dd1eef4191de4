//! The zoo: one training step of each of many well-known models, small enough for a CPU.
//!
//! The table has few models and measures each part of them; here are many, each written as its paper has it, to see what
//! no row of the table asks for. Sizes are those of examples, not of papers. Their peer is `peer_models.py`.
//!
//! Reading order: `shared` (what several have), `vision`, `pixels`, `patches`, `sequence`, `recurrent`, `other`.

mod other;
mod patches;
mod pixels;
mod recurrent;
mod sequence;
mod shared;
mod vision;

use crate::Row;
use crate::row::Mode;
use crate::rows::model;

/// A training step of each model. Run only if asked for by name.
pub const MODELS: &[Row] = &[
    model!("model_resnet50", vision::resnet50),
    model!("model_mobilenet", vision::mobilenet),
    model!("model_vgg", vision::vgg),
    model!("model_densenet", vision::densenet),
    model!("model_resnext", vision::resnext),
    model!("model_efficientnet", vision::efficientnet),
    model!("model_convnext", vision::convnext),
    model!("model_unet", pixels::unet),
    model!("model_deeplab", pixels::deeplab),
    model!("model_ddpm", pixels::ddpm),
    model!("model_vit", patches::vit),
    model!("model_mixer", patches::mixer),
    model!("model_llama", sequence::llama),
    model!("model_seq2seq", sequence::seq2seq),
    model!("model_lstm", recurrent::lstm),
    model!("model_gru", recurrent::gru),
    model!("model_dlrm", other::dlrm),
    model!("model_nerf", other::nerf),
    model!("model_gcn", other::gcn),
    model!("model_vae", other::vae),
    model!("model_clip", other::clip),
    model!("model_moe", other::moe),
    model!("model_dqn", other::dqn),
];

#[cfg(test)]
mod tests {
    use kiln::prelude::*;

    use super::*;

    /// Makes the case of each model and takes its first step.
    fn step_each(mode: Mode) {
        let device = Device::cpu();
        for row in MODELS {
            let mut case = row.maker(mode).expect("a model has both modes")(&device).unwrap();
            (case.step)().unwrap_or_else(|error| panic!("{}: {error}", row.name));
            device.eval().unwrap();
        }
    }

    #[test]
    fn every_model_takes_a_step() {
        step_each(Mode::Implicit);
    }

    #[test]
    fn every_model_takes_a_step_that_is_recorded_once() {
        step_each(Mode::Jit);
    }

    #[test]
    fn no_model_runs_with_the_table() {
        assert!(MODELS.iter().all(|row| row.name.starts_with("model_")));
    }
}
