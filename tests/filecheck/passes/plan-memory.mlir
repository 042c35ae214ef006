// RUN: quartic-opt %s -p "fuse-kernels,tile-kernels{machine=tiny schedule=\"%S/tile-kernels.toml\"},plan-memory{machine=tiny}" | filecheck %s

// The graph's input keeps PyTorch's order; what stays on chip lies NHWC and is read where it was written.
// CHECK: tile.kernel "q"
// CHECK: places [#tile.place<input, 0, [128, 16, 4, 64], 4>, #tile.place<sram, [[AT:[0-9]+]], [32, 8, 2, 1], 1>] steps {
// CHECK-NEXT: tile.ring "stream" 0 slots 2 x 128 at {{[0-9]+}} : !tile.channel
// CHECK: tile.kernel "conv"
// CHECK: places [#tile.place<sram, [[AT]], [32, 8, 2, 1], 1>, #tile.place<constants, 0, [18, 6, 2, 1], 1>, #tile.place<output, 0, [256, 16, 4, 64], 4>] steps {
// CHECK-NEXT: tile.ring "weight" 1 slots 2 x 128 at {{[0-9]+}} : !tile.channel
// CHECK-NEXT: tile.ring "acc" -1 slots 2 x 256 at 0 : !tile.channel
// CHECK-NEXT: tile.ring "output" -1 slots 2 x 128 at {{[0-9]+}} : !tile.channel

func.func @main(%x: tensor<1x2x4x4xf32>) -> tensor<1x4x4x4xf32> {
  %w = qnn.constant dense<1> : tensor<4x2x3x3xi8> : tensor<4x2x3x3xi8>
  %s = qnn.constant dense<0.5> : tensor<4xf32> : tensor<4xf32>
  %c = qnn.quantize %x : tensor<1x2x4x4xf32> -> tensor<1x2x4x4x!qnn.int<8, 0.1, 0>> loc("q | net")
  %0 = qnn.conv2d %c, %w, %s padding <1, 1, 1, 1> : (tensor<1x2x4x4x!qnn.int<8, 0.1, 0>>, tensor<4x2x3x3xi8>, tensor<4xf32>) -> tensor<1x4x4x4xf32> loc("conv | net")
  %1 = qnn.relu %0 : tensor<1x4x4x4xf32> loc("relu | net")
  func.return %1 : tensor<1x4x4x4xf32>
}
