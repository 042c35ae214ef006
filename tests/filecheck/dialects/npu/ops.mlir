// RUN: ROUNDTRIP

// Fields at their default are left out; enum values are names; the generic form holds every field.

// CHECK:      npu.load.copy <signal_a = 1, region = input, sram = 256, bytes = 64>
npu.load.copy <signal_a = 1, region = input, sram = 0x100, bytes = 64>
// CHECK-NEXT: npu.vcu.op <slot = 1, func = mul, b_kind = immediate, immediate = 0.10000000149011612>
npu.vcu.op <slot = 1, func = mul, b_kind = immediate, immediate = 0.1>
// CHECK-NEXT: npu.vcu.convert <zero = -128, scale = -inf>
npu.vcu.convert <zero = -128, scale = -inf>
// CHECK-NEXT: npu.mmu.run <wait_a = 1, n = 64, accumulate = 1> {hot}
npu.mmu.run <wait_a = 1, n = 64, accumulate = 1> {hot}
// CHECK-NEXT: npu.halt
npu.halt
