// RUN: ROUNDTRIP
// RUN: quartic-opt %s | quartic-opt | filecheck %s

// CHECK-LABEL: @kernel
func.func @kernel(%x: tensor<1x2x4x4x!qnn.int<8, 0.1, 0>>, %w: tensor<4x2x3x3xi8>, %s: tensor<4xf32>) {
  // CHECK-NEXT: %0 = tile.kernel "conv" (%a = %x, %b = %w, %c = %s) : (tensor<1x2x4x4x!qnn.int<8, 0.1, 0>>, tensor<4x2x3x3xi8>, tensor<4xf32>) -> tensor<1x4x4x4xf32> {
  // CHECK-NEXT:   %1 = qnn.conv2d %a, %b, %c padding <1, 1, 1, 1> :
  // CHECK-NEXT:   kern.yield %1 :
  // CHECK-NEXT: } schedule <kernel = "conv", nodes = ["conv", "re\"lu"], tile_h = 2, tile_w = 4, tile_c = 4, tile_k = 2, order = "nhwc", input_slots = 3, weight_slots = 1,
  // CHECK-SAME: keep = true> places [#tile.place<input, 0, [32, 1, 4, 16], 1>, #tile.place<constants, 64, [18, 6, 2, 1], 1>, #tile.place<sram, 512, [256, 64, 16, 4], 4>] steps {
  // CHECK-NEXT:   %{{.*}} = tile.ring "act" 0 slots 3 x 64 at 0 : !tile.channel
  // CHECK-NEXT:   %{{.*}} = tile.ring "weight" 1 slots 1 x 128 at 192 : !tile.channel
  // CHECK-NEXT:   %{{.*}} = tile.ring "acc" -1 slots 2 x 256 : !tile.channel
  // CHECK-NEXT:   tile.for "h" to 4 step 2 {
  // CHECK-NEXT:     tile.load %{{.*}} : !tile.channel
  // CHECK-NEXT:     tile.load %{{.*}} : !tile.channel
  // CHECK-NEXT:     tile.mma %{{.*}}, %{{.*}}, %{{.*}} : !tile.channel, !tile.channel, !tile.channel
  // CHECK-NEXT:     tile.vector %{{.*}} : !tile.channel
  // CHECK-NEXT:     tile.pool{{$}}
  // CHECK-NEXT:     tile.copy{{$}}
  // CHECK-NEXT:     tile.store %{{.*}} : !tile.channel
  // CHECK-NEXT:   }
  // CHECK-NEXT: }
  %0 = tile.kernel "conv" (%a = %x, %b = %w, %c = %s) : (tensor<1x2x4x4x!qnn.int<8, 0.1, 0>>, tensor<4x2x3x3xi8>, tensor<4xf32>) -> tensor<1x4x4x4xf32> {
    %1 = qnn.conv2d %a, %b, %c padding <1, 1, 1, 1> : (tensor<1x2x4x4x!qnn.int<8, 0.1, 0>>, tensor<4x2x3x3xi8>, tensor<4xf32>) -> tensor<1x4x4x4xf32>
    kern.yield %1 : tensor<1x4x4x4xf32>
  } schedule <kernel = "conv", nodes = ["conv", "re\"lu"], tile_h = 2, tile_w = 4, tile_c = 4, tile_k = 2, order = "nhwc", input_slots = 3, weight_slots = 1, keep = true> places [#tile.place<input, 0, [32, 1, 4, 16], 1>, #tile.place<constants, 64, [18, 6, 2, 1], 1>, #tile.place<sram, 512, [256, 64, 16, 4], 4>] steps {
    %2 = tile.ring "act" 0 slots 3 x 64 at 0 : !tile.channel
    %3 = tile.ring "weight" 1 slots 1 x 128 at 192 : !tile.channel
    %4 = tile.ring "acc" -1 slots 2 x 256 : !tile.channel
    tile.for "h" to 4 step 2 {
      tile.load %2 : !tile.channel
      tile.load %3 : !tile.channel
      tile.mma %2, %3, %4 : !tile.channel, !tile.channel, !tile.channel
      tile.vector %4 : !tile.channel
      tile.pool
      tile.copy
      tile.store %2 : !tile.channel
    }
  }
  // CHECK: } schedule <kernel = "pool", nodes = [], tile_h = 2,
  // CHECK-SAME: keep = false, shares = true, stripes = [3, 3, 4]> places [#tile.place<sram, 64, [32, 8, 2, 1], 1, axis 1, slots 3 x 64, row 64, rows [0, 0, 1], fills [1, 1, 2]>,
  %5 = tile.kernel "pool" (%a = %x) : (tensor<1x2x4x4x!qnn.int<8, 0.1, 0>>) -> tensor<1x2x4x4x!qnn.int<8, 0.1, 0>> {
    %6 = qnn.max_pool2d %a kernel <3, 3> strides <1, 1> padding <1, 1, 1, 1> dilation <1, 1> : tensor<1x2x4x4x!qnn.int<8, 0.1, 0>> -> tensor<1x2x4x4x!qnn.int<8, 0.1, 0>>
    kern.yield %6 : tensor<1x2x4x4x!qnn.int<8, 0.1, 0>>
  } schedule <kernel = "pool", nodes = [], tile_h = 2, tile_w = 4, tile_c = 2, tile_k = 1, shares = true, stripes = [3, 3, 4]> places [#tile.place<sram, 64, [32, 8, 2, 1], 1, axis 1, slots 3 x 64, row 64, rows [0, 0, 1], fills [1, 1, 2]>, #tile.place<arena, 0, [32, 8, 2, 1], 1>] steps {
    tile.vector
  }
  func.return
}
