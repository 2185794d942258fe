"""Names of our settings in other trainers and in earlier versions, so that a key written from habit is answered with
ours.
"""

SYNONYMS = {
    "model.name_or_path": (
        "model model_name_or_path model_name model_path pretrained_model_name_or_path base_model checkpoint"
    ),
    "model.lr": "learning_rate base_lr max_lr peak_lr",
    "model.optimizer.warmup_ratio": "warmup_ratio warmup_share warmup_steps num_warmup_steps",
    "model.optimizer.min_lr_ratio": "min_lr min_lr_ratio final_lr_share lr_scheduler_type",
    "model.optimizer.betas": "adam_beta1 adam_beta2",
    "model.dtype": "torch_dtype",
    "model.attention": "attn_implementation",
    "model.lora.rank": "lora_r lora_rank use_peft use_lora",
    "model.lora.alpha": "lora_alpha",
    "model.lora.quantize": "load_in_4bit load_in_8bit quantize quantise",
    "model.generation.generate_every_n_validations": "write_every",
    "model.generation.sampling.max_new_tokens": "max_completion_length max_tokens",
    "model.generation.sampling.temperature": "temperature",
    "data.feedback": "dataset dataset_name dataset_path data_path train_file train_data data_files",
    "data.tokenizer": "tokenizer_name tokenizer_name_or_path tokenizer_path",
    "data.rows_per_step": (
        "batch_size train_batch_size global_batch_size micro_batch_size per_device_train_batch_size "
        "per_device_batch_size gradient_accumulation_steps grad_accum_steps"
    ),
    "data.max_chain_tokens": (
        "max_length max_seq_length max_seq_len max_sequence_length model_max_length seq_length cutoff_len block_size"
    ),
    "data.max_prompt_tokens": "max_prompt_length",
    "data.method.preference_from": "judge",
    "data.conditions": "asks",
    "data.fcm_range": "hide fcm fcm_ratio",
    "data.fcm_on_pretraining": "hide_regulariser hide_regularizer",
    "data.pretraining_text": "regulariser regularizer pretraining",
    "data.pretraining_rows_per_step": "regulariser_rows_per_step regularizer_rows_per_step",
    "data.pretraining_weight": "regulariser_weight regularizer_weight",
    "data.max_unusable_fraction": "max_lost_share",
    "data.num_workers": "dataloader_num_workers",
    "trainer.max_epochs": "num_train_epochs num_epochs epochs n_epochs",
    "trainer.max_steps": "max_train_steps num_steps num_training_steps total_steps train_steps",
    "trainer.gradient_clip_val": "max_grad_norm grad_clip clip_grad_norm",
    "trainer.precision": "bf16 fp16 mixed_precision",
    "trainer.log_every_n_steps": "logging_steps log_steps log_interval",
    "trainer.val_check_interval": "eval_steps evaluation_strategy eval_strategy eval_interval",
    "trainer.callbacks": "save_steps save_strategy save_total_limit early_stopping_patience",
    "trainer.devices": "num_gpus gpus n_gpus num_processes",
    "trainer.strategy": "deepspeed fsdp",
    "run.folder": "output_dir out_dir save_dir",
    "run.name": "run_name experiment_name exp_name",
    "run.wandb": "report_to use_wandb",
    "seed_everything": "random_seed",
    "ckpt_path": "resume_from_checkpoint resume resume_from",
}
"""Our key -> the names elsewhere, separated by spaces."""

OURS = {theirs: ours for ours, names in SYNONYMS.items() for theirs in names.split()}
"""The name elsewhere -> our key."""
