// RUN: VERIFY_DIAG

// CHECK: mmu.run: n=16384 must be an integer in 0..16383
npu.mmu.run <n = 16384>

// -----

// CHECK: load.copy: region=7 must be one of code (0), constants (1)
npu.load.copy <region = 7>

// -----

// CHECK: npu.halt has no field 'n'; its fields are wait_a, wait_b, signal_a, signal_b
npu.halt <n = 1>
