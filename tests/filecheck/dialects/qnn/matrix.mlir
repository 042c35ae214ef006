// RUN: ROUNDTRIP

// CHECK-LABEL: @conv2d
func.func @conv2d(%x: tensor<1x4x8x8x!qnn.int<8, 0.1, -3>>, %w: tensor<6x2x3x3xi8>, %s: tensor<6xf32>, %b: tensor<6xf32>) {
  // CHECK-NEXT: %0 = qnn.conv2d %x, %w, %s, %b strides <2, 1> padding <1, 2, 3, 4> dilation <1, 2> groups 2 : (tensor<1x4x8x8x!qnn.int<8, 0.1, -3>>, tensor<6x2x3x3xi8>, tensor<6xf32>, tensor<6xf32>) -> tensor<1x6x5x10xf32>
  %0 = qnn.conv2d %x, %w, %s, %b strides <2, 1> padding <1, 2, 3, 4> dilation <1, 2> groups 2 : (tensor<1x4x8x8x!qnn.int<8, 0.1, -3>>, tensor<6x2x3x3xi8>, tensor<6xf32>, tensor<6xf32>) -> tensor<1x6x5x10xf32>
  func.return
}

// -----

// CHECK-LABEL: @conv2d_defaults
func.func @conv2d_defaults(%x: tensor<1x2x8x8x!qnn.int<8, 0.1, -3>>, %w: tensor<6x2x3x3xi8>, %s: tensor<6xf32>) {
  // CHECK-NEXT: %0 = qnn.conv2d %x, %w, %s : (tensor<1x2x8x8x!qnn.int<8, 0.1, -3>>, tensor<6x2x3x3xi8>, tensor<6xf32>) -> tensor<1x6x6x6xf32>
  %0 = qnn.conv2d %x, %w, %s : (tensor<1x2x8x8x!qnn.int<8, 0.1, -3>>, tensor<6x2x3x3xi8>, tensor<6xf32>) -> tensor<1x6x6x6xf32>
  func.return
}

// -----

// CHECK-LABEL: @linear
func.func @linear(%x: tensor<2x5x3x!qnn.int<8, 0.1, 0>>, %w: tensor<4x3xi8>, %s: tensor<4xf32>, %b: tensor<4xf32>) {
  // CHECK-NEXT: %0 = qnn.linear %x, %w, %s : (tensor<2x5x3x!qnn.int<8, 0.1, 0>>, tensor<4x3xi8>, tensor<4xf32>) -> tensor<2x5x4xf32>
  %0 = qnn.linear %x, %w, %s : (tensor<2x5x3x!qnn.int<8, 0.1, 0>>, tensor<4x3xi8>, tensor<4xf32>) -> tensor<2x5x4xf32>
  // CHECK-NEXT: %1 = qnn.linear %x, %w, %s, %b : (
  %1 = qnn.linear %x, %w, %s, %b : (tensor<2x5x3x!qnn.int<8, 0.1, 0>>, tensor<4x3xi8>, tensor<4xf32>, tensor<4xf32>) -> tensor<2x5x4xf32>
  func.return
}

// -----

// CHECK-LABEL: @matmul
func.func @matmul(%a: tensor<2x1x3x4x!qnn.int<8, 0.1, 0>>, %b: tensor<5x4x6x!qnn.int<8, 0.2, 7>>) {
  // CHECK-NEXT: %0 = qnn.matmul %a, %b : (tensor<2x1x3x4x!qnn.int<8, 0.1, 0>>, tensor<5x4x6x!qnn.int<8, 0.2, 7>>) -> tensor<2x5x3x6xf32>
  %0 = qnn.matmul %a, %b : (tensor<2x1x3x4x!qnn.int<8, 0.1, 0>>, tensor<5x4x6x!qnn.int<8, 0.2, 7>>) -> tensor<2x5x3x6xf32>
  func.return
}
