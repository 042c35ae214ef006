// RUN: quartic-opt %s -p "fuse-kernels,tile-kernels{machine=tiny schedule=\"%S/shared-loops.toml\"},plan-memory{machine=tiny}" | filecheck %s

// Two stripes: the convolution makes rows 0..1 and 2..3, q what that reads, rows 0..2 and 3. The convolution reads row 1 again.
// CHECK: tile.kernel "q"
// CHECK: shares = true, stripes = [3, 4]> places
// CHECK-SAME: #tile.place<sram, [[AT:[0-9]+]], [32, 8, 2, 1], 1, axis 1, slots 2 x 64, row 8, rows [0, 1], fills [1, 2]>] steps {
// CHECK: tile.for "h" to 4 step 3 {
// CHECK: tile.kernel "conv"
// CHECK: stripes = [2, 4]> places [#tile.place<sram, [[AT]], [32, 8, 2, 1], 1, axis 1, slots 2 x 64, row 8, rows [0, 1], fills [1, 2]>,
// CHECK-NOT: tile.ring "act"
// CHECK: tile.for "h" to 4 step 2 {

func.func @main(%x: tensor<1x2x4x4xf32>) -> tensor<1x4x4x4xf32> {
  %w = qnn.constant dense<1> : tensor<4x2x3x3xi8> : tensor<4x2x3x3xi8>
  %s = qnn.constant dense<0.5> : tensor<4xf32> : tensor<4xf32>
  %c = qnn.quantize %x : tensor<1x2x4x4xf32> -> tensor<1x2x4x4x!qnn.int<8, 0.1, 0>> loc("q | net")
  %0 = qnn.conv2d %c, %w, %s padding <1, 1, 1, 1> : (tensor<1x2x4x4x!qnn.int<8, 0.1, 0>>, tensor<4x2x3x3xi8>, tensor<4xf32>) -> tensor<1x4x4x4xf32> loc("conv | net")
  %1 = qnn.relu %0 : tensor<1x4x4x4xf32> loc("relu | net")
  func.return %1 : tensor<1x4x4x4xf32>
}
