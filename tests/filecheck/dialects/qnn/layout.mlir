// RUN: ROUNDTRIP

// CHECK-LABEL: @pools
func.func @pools(%x: tensor<1x2x9x9x!qnn.int<8, 0.1, -3>>) {
  // CHECK-NEXT: %0 = qnn.max_pool2d %x kernel <3, 3> strides <2, 2> padding <1, 1, 1, 1> dilation <1, 2> : tensor<1x2x9x9x!qnn.int<8, 0.1, -3>> -> tensor<1x2x5x4x!qnn.int<8, 0.1, -3>>
  %0 = qnn.max_pool2d %x kernel <3, 3> strides <2, 2> padding <1, 1, 1, 1> dilation <1, 2> : tensor<1x2x9x9x!qnn.int<8, 0.1, -3>> -> tensor<1x2x5x4x!qnn.int<8, 0.1, -3>>
  // CHECK-NEXT: %1 = qnn.max_pool2d %x kernel <2, 2> : tensor<1x2x9x9x!qnn.int<8, 0.1, -3>> -> tensor<1x2x8x8x!qnn.int<8, 0.1, -3>>
  %1 = qnn.max_pool2d %x kernel <2, 2> : tensor<1x2x9x9x!qnn.int<8, 0.1, -3>> -> tensor<1x2x8x8x!qnn.int<8, 0.1, -3>>
  // CHECK-NEXT: %2 = qnn.avg_pool2d %x kernel <3, 3> strides <3, 3> padding <1, 0, 2, 0> count_include_pad false : tensor<1x2x9x9x!qnn.int<8, 0.1, -3>> -> tensor<1x2x4x3xf32>
  %2 = qnn.avg_pool2d %x kernel <3, 3> strides <3, 3> padding <1, 0, 2, 0> count_include_pad false : tensor<1x2x9x9x!qnn.int<8, 0.1, -3>> -> tensor<1x2x4x3xf32>
  // CHECK-NEXT: %3 = qnn.avg_pool2d %x kernel <9, 9> divisor 7 : tensor<1x2x9x9x!qnn.int<8, 0.1, -3>> -> tensor<1x2x1x1xf32>
  %3 = qnn.avg_pool2d %x kernel <9, 9> divisor 7 : tensor<1x2x9x9x!qnn.int<8, 0.1, -3>> -> tensor<1x2x1x1xf32>
  // CHECK-NEXT: %4 = qnn.adaptive_avg_pool2d %x size <4, 2> : tensor<1x2x9x9x!qnn.int<8, 0.1, -3>> -> tensor<1x2x4x2xf32>
  %4 = qnn.adaptive_avg_pool2d %x size <4, 2> : tensor<1x2x9x9x!qnn.int<8, 0.1, -3>> -> tensor<1x2x4x2xf32>
  func.return
}

// -----

// CHECK-LABEL: @movement
func.func @movement(%x: tensor<2x3x!qnn.int<8, 0.5, -3>>, %y: tensor<2x3xf32>) {
  // CHECK-NEXT: %0 = qnn.pad %x by <0, 1, 2, 0> : tensor<2x3x!qnn.int<8, 0.5, -3>> -> tensor<3x5x!qnn.int<8, 0.5, -3>>
  %0 = qnn.pad %x by <0, 1, 2, 0> : tensor<2x3x!qnn.int<8, 0.5, -3>> -> tensor<3x5x!qnn.int<8, 0.5, -3>>
  // CHECK-NEXT: %1 = qnn.pad %y by <0, 1, 2, 0> value <-inf> : tensor<2x3xf32> -> tensor<3x5xf32>
  %1 = qnn.pad %y by <0, 1, 2, 0> value <-inf> : tensor<2x3xf32> -> tensor<3x5xf32>
  // CHECK-NEXT: %2 = qnn.concat %x, %x axis 1 : (tensor<2x3x!qnn.int<8, 0.5, -3>>, tensor<2x3x!qnn.int<8, 0.5, -3>>) -> tensor<2x6x!qnn.int<8, 0.5, -3>>
  %2 = qnn.concat %x, %x axis 1 : (tensor<2x3x!qnn.int<8, 0.5, -3>>, tensor<2x3x!qnn.int<8, 0.5, -3>>) -> tensor<2x6x!qnn.int<8, 0.5, -3>>
  // CHECK-NEXT: %3 = qnn.reshape %y : tensor<2x3xf32> -> tensor<1x6x1xf32>
  %3 = qnn.reshape %y : tensor<2x3xf32> -> tensor<1x6x1xf32>
  // CHECK-NEXT: %4 = qnn.permute %x order <1, 0> : tensor<2x3x!qnn.int<8, 0.5, -3>> -> tensor<3x2x!qnn.int<8, 0.5, -3>>
  %4 = qnn.permute %x order <1, 0> : tensor<2x3x!qnn.int<8, 0.5, -3>> -> tensor<3x2x!qnn.int<8, 0.5, -3>>
  // CHECK-NEXT: %5 = qnn.slice %y from <0, 1> size <2, 2> step <1, 1> : tensor<2x3xf32> -> tensor<2x2xf32>
  %5 = qnn.slice %y from <0, 1> size <2, 2> step <1, 1> : tensor<2x3xf32> -> tensor<2x2xf32>
  // CHECK-NEXT: %6 = qnn.slice %x from <1, 0> size <1, 2> step <1, 2> : tensor<2x3x!qnn.int<8, 0.5, -3>> -> tensor<1x2x!qnn.int<8, 0.5, -3>>
  %6 = qnn.slice %x from <1, 0> size <1, 2> step <1, 2> : tensor<2x3x!qnn.int<8, 0.5, -3>> -> tensor<1x2x!qnn.int<8, 0.5, -3>>
  // CHECK-NEXT: %7 = qnn.expand %y : tensor<2x3xf32> -> tensor<4x2x3xf32>
  %7 = qnn.expand %y : tensor<2x3xf32> -> tensor<4x2x3xf32>
  func.return
}
