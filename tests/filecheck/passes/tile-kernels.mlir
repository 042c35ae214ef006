// RUN: quartic-opt %s -p "fuse-kernels,tile-kernels{machine=tiny schedule=\"%S/tile-kernels.toml\"}" | filecheck %s
// RUN: quartic-opt %s -p "fuse-kernels,tile-kernels{machine=tiny slots=1}" | filecheck %s --check-prefix SINGLE

// The result of q stays on chip: it needs no output ring, and conv no ring to read it.
// CHECK: tile.kernel "q"
// CHECK: keep = true> steps {
// CHECK-NEXT: %[[S:.*]] = tile.ring "stream" 0 slots 2 x 128 : !tile.channel
// CHECK-NEXT: tile.load %[[S]]
// CHECK-NEXT: tile.vector %[[S]]
// CHECK-NEXT: }
// CHECK: tile.kernel "conv"
// CHECK: tile_h = 2,
// CHECK-NEXT: %[[W:.*]] = tile.ring "weight" 1 slots 2 x 128 : !tile.channel
// CHECK-NEXT: %[[A:.*]] = tile.ring "acc" -1 slots 2 x 256 : !tile.channel
// CHECK-NEXT: %[[O:.*]] = tile.ring "output" -1 slots 2 x 128 : !tile.channel
// CHECK-NEXT: tile.for "h" to 4 step 2 {
// CHECK-NEXT:   tile.load %[[W]]
// CHECK-NEXT:   tile.mma %[[W]], %[[A]]
// CHECK-NEXT:   tile.vector %[[A]], %[[O]]
// CHECK-NEXT:   tile.store %[[O]]

// SINGLE: input_slots = 1, weight_slots = 1, stream_slots = 1, output_slots = 1,
// SINGLE: tile.ring "stream" 0 slots 1 x

func.func @main(%x: tensor<1x2x4x4xf32>) -> tensor<1x4x4x4xf32> {
  %w = qnn.constant dense<1> : tensor<4x2x3x3xi8> : tensor<4x2x3x3xi8>
  %s = qnn.constant dense<0.5> : tensor<4xf32> : tensor<4xf32>
  %c = qnn.quantize %x : tensor<1x2x4x4xf32> -> tensor<1x2x4x4x!qnn.int<8, 0.1, 0>> loc("q | net")
  %0 = qnn.conv2d %c, %w, %s padding <1, 1, 1, 1> : (tensor<1x2x4x4x!qnn.int<8, 0.1, 0>>, tensor<4x2x3x3xi8>, tensor<4xf32>) -> tensor<1x4x4x4xf32> loc("conv | net")
  %1 = qnn.relu %0 : tensor<1x4x4x4xf32> loc("relu | net")
  func.return %1 : tensor<1x4x4x4xf32>
}
