// RUN: VERIFY_DIAG

func.func @conv_channels(%x: tensor<1x3x8x8x!qnn.int<8, 0.1, 0>>, %w: tensor<6x2x3x3xi8>, %s: tensor<6xf32>) {
  // CHECK: input has 3 channels, weight wants 2 x 1 groups
  %0 = qnn.conv2d %x, %w, %s : (tensor<1x3x8x8x!qnn.int<8, 0.1, 0>>, tensor<6x2x3x3xi8>, tensor<6xf32>) -> tensor<1x6x6x6xf32>
  func.return
}

// -----

func.func @conv_float(%x: tensor<1x2x8x8xf32>, %w: tensor<6x2x3x3xi8>, %s: tensor<6xf32>) {
  // CHECK: weight element type must be i4, i8 or i16 with codes, f32 with f32, got tensor<6x2x3x3xi8>
  %0 = qnn.conv2d %x, %w, %s : (tensor<1x2x8x8xf32>, tensor<6x2x3x3xi8>, tensor<6xf32>) -> tensor<1x6x6x6xf32>
  func.return
}

// -----

func.func @conv_scale(%x: tensor<1x2x8x8x!qnn.int<8, 0.1, 0>>, %w: tensor<6x2x3x3xi8>, %s: tensor<1xf32>) {
  // CHECK: scale must be tensor<6xf32>, got tensor<1xf32>
  %0 = qnn.conv2d %x, %w, %s : (tensor<1x2x8x8x!qnn.int<8, 0.1, 0>>, tensor<6x2x3x3xi8>, tensor<1xf32>) -> tensor<1x6x6x6xf32>
  func.return
}

// -----

func.func @conv_result(%x: tensor<1x2x8x8x!qnn.int<8, 0.1, 0>>, %w: tensor<6x2x3x3xi8>, %s: tensor<6xf32>) {
  // CHECK: result must be tensor<1x6x6x6xf32>, got tensor<1x6x8x8xf32>
  %0 = qnn.conv2d %x, %w, %s : (tensor<1x2x8x8x!qnn.int<8, 0.1, 0>>, tensor<6x2x3x3xi8>, tensor<6xf32>) -> tensor<1x6x8x8xf32>
  func.return
}

// -----

func.func @conv_window(%x: tensor<1x2x2x2x!qnn.int<8, 0.1, 0>>, %w: tensor<6x2x3x3xi8>, %s: tensor<6xf32>) {
  // CHECK: window (3, 3) with dilation (1, 1) is larger than input (2, 2) padded by (0, 0, 0, 0)
  %0 = qnn.conv2d %x, %w, %s : (tensor<1x2x2x2x!qnn.int<8, 0.1, 0>>, tensor<6x2x3x3xi8>, tensor<6xf32>) -> tensor<1x6x1x1xf32>
  func.return
}

// -----

func.func @conv_padding(%x: tensor<1x2x8x8x!qnn.int<8, 0.1, 0>>, %w: tensor<6x2x3x3xi8>, %s: tensor<6xf32>) {
  // CHECK: strides, padding and dilation have 2, 4 and 2 entries
  %0 = qnn.conv2d %x, %w, %s padding <1, 1> : (tensor<1x2x8x8x!qnn.int<8, 0.1, 0>>, tensor<6x2x3x3xi8>, tensor<6xf32>) -> tensor<1x6x8x8xf32>
  func.return
}

// -----

func.func @linear(%x: tensor<2x3x!qnn.int<8, 0.1, 0>>, %w: tensor<4x5xi8>, %s: tensor<4xf32>) {
  // CHECK: contraction mismatch: input (2, 3), weight (4, 5)
  %0 = qnn.linear %x, %w, %s : (tensor<2x3x!qnn.int<8, 0.1, 0>>, tensor<4x5xi8>, tensor<4xf32>) -> tensor<2x4xf32>
  func.return
}

// -----

func.func @matmul(%a: tensor<2x3x!qnn.int<8, 0.1, 0>>) {
  // CHECK: contraction mismatch: (2, 3) times (2, 3)
  %0 = qnn.matmul %a, %a : (tensor<2x3x!qnn.int<8, 0.1, 0>>, tensor<2x3x!qnn.int<8, 0.1, 0>>) -> tensor<2x3xf32>
  func.return
}

// -----

func.func @broadcast(%a: tensor<2x3xf32>, %b: tensor<2xf32>) {
  // CHECK: shapes (2, 3), (2,) do not broadcast
  %0 = qnn.add %a, %b : (tensor<2x3xf32>, tensor<2xf32>) -> tensor<2x3xf32>
  func.return
}

// -----

func.func @relu_of_codes(%a: tensor<2x3x!qnn.int<8, 0.1, 0>>) {
  // CHECK: input must hold f32
  %0 = qnn.relu %a : tensor<2x3x!qnn.int<8, 0.1, 0>>
  func.return
}

// -----

func.func @quantize_range(%a: tensor<2x3xf32>) {
  // CHECK: range <-129, 127> must be ordered and lie in [-128, 127]
  %0 = qnn.quantize %a range <-129, 127> : tensor<2x3xf32> -> tensor<2x3x!qnn.int<8, 0.1, 0>>
  func.return
}

// -----

func.func @quantize_shape(%a: tensor<2x3xf32>) {
  // CHECK: result must be tensor<2x3x!qnn.int<8, 0.1, 0>>, got tensor<3x2x!qnn.int<8, 0.1, 0>>
  %0 = qnn.quantize %a : tensor<2x3xf32> -> tensor<3x2x!qnn.int<8, 0.1, 0>>
  func.return
}

// -----

func.func @constant() {
  // CHECK: value tensor<2xf32> cannot be a tensor<2x!qnn.int<8, 0.5, 1>>
  %0 = qnn.constant dense<[1.0, 2.0]> : tensor<2xf32> : tensor<2x!qnn.int<8, 0.5, 1>>
  func.return
}

// -----

func.func @pool(%x: tensor<1x2x4x4x!qnn.int<8, 0.1, 0>>) {
  // CHECK: padding (2, 2, 2, 2) leaves a window of (2, 2) without input
  %0 = qnn.max_pool2d %x kernel <2, 2> padding <2, 2, 2, 2> : tensor<1x2x4x4x!qnn.int<8, 0.1, 0>> -> tensor<1x2x7x7x!qnn.int<8, 0.1, 0>>
  func.return
}

// -----

func.func @divisor(%x: tensor<1x2x4x4x!qnn.int<8, 0.1, 0>>) {
  // CHECK: divisor must be >= 1, got 0
  %0 = qnn.avg_pool2d %x kernel <4, 4> divisor 0 : tensor<1x2x4x4x!qnn.int<8, 0.1, 0>> -> tensor<1x2x1x1xf32>
  func.return
}

// -----

func.func @adaptive(%x: tensor<1x2x4x4x!qnn.int<8, 0.1, 0>>) {
  // CHECK: output size must be two positive numbers, got (0, 1)
  %0 = qnn.adaptive_avg_pool2d %x size <0, 1> : tensor<1x2x4x4x!qnn.int<8, 0.1, 0>> -> tensor<1x2x0x1xf32>
  func.return
}

// -----

func.func @pad(%x: tensor<2x3x!qnn.int<8, 0.1, 0>>) {
  // CHECK: padding needs two numbers >= 0 for each of 2 dimensions, got (1, 1)
  %0 = qnn.pad %x by <1, 1> : tensor<2x3x!qnn.int<8, 0.1, 0>> -> tensor<2x5x!qnn.int<8, 0.1, 0>>
  func.return
}

// -----

func.func @pad_value(%x: tensor<2x!qnn.int<8, 0.1, 0>>) {
  // CHECK: value 100.0 is not a code of !qnn.int<8, 0.1, 0>
  %0 = qnn.pad %x by <1, 1> value <100.0> : tensor<2x!qnn.int<8, 0.1, 0>> -> tensor<4x!qnn.int<8, 0.1, 0>>
  func.return
}

// -----

func.func @pad_between_codes(%x: tensor<2x!qnn.int<8, 0.5, 0>>) {
  // CHECK: value 0.3 is not a code of !qnn.int<8, 0.5, 0>
  %0 = qnn.pad %x by <1, 1> value <0.3> : tensor<2x!qnn.int<8, 0.5, 0>> -> tensor<4x!qnn.int<8, 0.5, 0>>
  func.return
}

// -----

func.func @concat_types(%x: tensor<2x!qnn.int<8, 0.1, 0>>, %y: tensor<2x!qnn.int<8, 0.1, 1>>) {
  // CHECK: element type must be !qnn.int<8, 0.1, 0>, got !qnn.int<8, 0.1, 1>
  %0 = qnn.concat %x, %y axis 0 : (tensor<2x!qnn.int<8, 0.1, 0>>, tensor<2x!qnn.int<8, 0.1, 1>>) -> tensor<4x!qnn.int<8, 0.1, 0>>
  func.return
}

// -----

func.func @concat_shapes(%x: tensor<2x3xf32>, %y: tensor<2x4xf32>) {
  // CHECK: shapes (2, 3) and (2, 4) differ outside axis 0
  %0 = qnn.concat %x, %y axis 0 : (tensor<2x3xf32>, tensor<2x4xf32>) -> tensor<4x3xf32>
  func.return
}

// -----

func.func @reshape(%x: tensor<2x3xf32>) {
  // CHECK: (2, 3) and (5,) differ in their number of elements
  %0 = qnn.reshape %x : tensor<2x3xf32> -> tensor<5xf32>
  func.return
}

// -----

func.func @permute(%x: tensor<2x3xf32>) {
  // CHECK: order (0, 0) is not a permutation of 2 dimensions
  %0 = qnn.permute %x order <0, 0> : tensor<2x3xf32> -> tensor<2x2xf32>
  func.return
}

// -----

func.func @slice(%x: tensor<2x3xf32>) {
  // CHECK: 2 indices from 1, 2 apart, leave dimension 1 of size 3
  %0 = qnn.slice %x from <0, 1> size <2, 2> step <1, 2> : tensor<2x3xf32> -> tensor<2x2xf32>
  func.return
}

// -----

func.func @expand(%x: tensor<2x3xf32>) {
  // CHECK: (2, 3) does not expand to (4, 3)
  %0 = qnn.expand %x : tensor<2x3xf32> -> tensor<4x3xf32>
  func.return
}

// -----

// CHECK: scale must be positive and finite, got -1.0
func.func @scale(%x: tensor<2x!qnn.int<8, -1.0, 0>>) {
  func.return
}

// -----

// CHECK: zero must be in [-128, 127], got 200
func.func @zero(%x: tensor<2x!qnn.int<8, 1.0, 200>>) {
  func.return
}

// -----

// CHECK: width must be one of (4, 8, 16), got 5
func.func @width(%x: tensor<2x!qnn.int<5, 1.0, 0>>) {
  func.return
}
