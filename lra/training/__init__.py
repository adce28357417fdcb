"""Training: from prepared data and a configuration to a tested model.

How one training step runs, from the loop to the parameters:

1. `trainer.train` is the loop. It calls `_TrainingRun.train_until_boundary`, which decides how many steps one dispatch
   makes (1 on a CPU) and passes them to
2. `train_step.train_steps`. For each step, `train_step.gradient` asks
3. `train_step.micro_batches` for the examples: `batching.batch_indices` returns the rows of step n as a pure function
   of (seed, n), and `batching.split_into_micro_batches` groups them by length, so that little padding is computed.
4. `StepFunctions.add_gradients` (compiled, one call per length) gathers token ids from the data on the devices
   (`device_dataset.gather`), runs the encoder forward and backward, and adds up the gradients.
5. `StepFunctions.update` (compiled) sums them over devices and applies the optimizer.

The metrics of a step stay on the devices until `History.flush`, so the next step is dispatched before this one is done.
Between steps, the loop evaluates (`evaluation`), saves (`checkpoints`) and compares the time used with the limit
(`budget`). When it ends, `_TrainingRun.select_and_test` loads the selected checkpoint and tests it once.
"""
