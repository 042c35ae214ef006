// RUN: quartic-opt %s -p canonicalize-qnn --split-input-file | filecheck %s

// CHECK-LABEL: @reshapes
func.func @reshapes(%x: tensor<2x3x4xf32>) -> (tensor<24xf32>, tensor<2x3x4xf32>) {
  // CHECK-NEXT: %0 = qnn.reshape %x : tensor<2x3x4xf32> -> tensor<24xf32>
  // CHECK-NEXT: func.return %0, %x
  %0 = qnn.reshape %x : tensor<2x3x4xf32> -> tensor<6x4xf32>
  %1 = qnn.reshape %0 : tensor<6x4xf32> -> tensor<24xf32>
  %2 = qnn.reshape %x : tensor<2x3x4xf32> -> tensor<2x3x4xf32>
  func.return %1, %2 : tensor<24xf32>, tensor<2x3x4xf32>
}

// -----

// CHECK-LABEL: @permutes
func.func @permutes(%x: tensor<2x3x4xf32>) -> (tensor<4x2x3xf32>, tensor<2x3x4xf32>) {
  // CHECK-NEXT: %0 = qnn.permute %x order <2, 0, 1>
  // CHECK-NEXT: func.return %0, %x
  %0 = qnn.permute %x order <1, 2, 0> : tensor<2x3x4xf32> -> tensor<3x4x2xf32>
  %1 = qnn.permute %0 order <1, 2, 0> : tensor<3x4x2xf32> -> tensor<4x2x3xf32>
  %2 = qnn.permute %1 order <1, 2, 0> : tensor<4x2x3xf32> -> tensor<2x3x4xf32>
  func.return %1, %2 : tensor<4x2x3xf32>, tensor<2x3x4xf32>
}

// -----

// CHECK-LABEL: @quantize_before_moving
func.func @quantize_before_moving(%x: tensor<1x2x3x4xf32>) -> tensor<12x2x!qnn.int<8, 0.5, 3>> {
  // CHECK-NEXT: qnn.quantize %x range <-127, 127> : tensor<1x2x3x4xf32>
  // CHECK-NEXT: qnn.reshape
  // CHECK-NEXT: qnn.permute
  // CHECK-NEXT: func.return
  %0 = qnn.reshape %x : tensor<1x2x3x4xf32> -> tensor<2x12xf32>
  %1 = qnn.permute %0 order <1, 0> : tensor<2x12xf32> -> tensor<12x2xf32>
  %2 = qnn.quantize %1 range <-127, 127> : tensor<12x2xf32> -> tensor<12x2x!qnn.int<8, 0.5, 3>>
  func.return %2 : tensor<12x2x!qnn.int<8, 0.5, 3>>
}

// -----

// CHECK-LABEL: @same_codes_again
func.func @same_codes_again(%x: tensor<4x!qnn.int<8, 0.1, 3>>) -> tensor<4x!qnn.int<8, 0.1, 3>> {
  // CHECK-NEXT: func.return %x
  %0 = qnn.dequantize %x : tensor<4x!qnn.int<8, 0.1, 3>> -> tensor<4xf32>
  %1 = qnn.quantize %0 : tensor<4xf32> -> tensor<4x!qnn.int<8, 0.1, 3>>
  func.return %1 : tensor<4x!qnn.int<8, 0.1, 3>>
}

// -----

// Another scale, a narrower range, or the other order: the values change.
// CHECK-LABEL: @not_the_same_codes
func.func @not_the_same_codes(%x: tensor<4x!qnn.int<8, 0.1, 3>>, %y: tensor<4xf32>) -> (tensor<4x!qnn.int<8, 0.2, 3>>, tensor<4x!qnn.int<8, 0.1, 3>>, tensor<4xf32>) {
  // CHECK-NEXT: qnn.dequantize %x
  // CHECK-NEXT: qnn.quantize
  // CHECK-NEXT: qnn.quantize
  // CHECK-NEXT: qnn.quantize %y
  // CHECK-NEXT: qnn.dequantize
  %0 = qnn.dequantize %x : tensor<4x!qnn.int<8, 0.1, 3>> -> tensor<4xf32>
  %1 = qnn.quantize %0 : tensor<4xf32> -> tensor<4x!qnn.int<8, 0.2, 3>>
  %2 = qnn.quantize %0 range <-127, 127> : tensor<4xf32> -> tensor<4x!qnn.int<8, 0.1, 3>>
  %3 = qnn.quantize %y : tensor<4xf32> -> tensor<4x!qnn.int<8, 0.1, 3>>
  %4 = qnn.dequantize %3 : tensor<4x!qnn.int<8, 0.1, 3>> -> tensor<4xf32>
  func.return %1, %2, %4 : tensor<4x!qnn.int<8, 0.2, 3>>, tensor<4x!qnn.int<8, 0.1, 3>>, tensor<4xf32>
}

// -----

// CHECK-LABEL: @saturation_clamps
func.func @saturation_clamps(%x: tensor<4xf32>) -> (tensor<4x!qnn.int<8, 0.1, -128>>, tensor<4x!qnn.int<8, 0.02, -128>>) {
  // CHECK-NEXT: %0 = qnn.quantize %x
  // CHECK-NEXT: %1 = qnn.quantize %x
  // CHECK-NEXT: func.return %0, %1
  %0 = qnn.relu %x : tensor<4xf32>
  %1 = qnn.quantize %0 : tensor<4xf32> -> tensor<4x!qnn.int<8, 0.1, -128>>
  %2 = qnn.clamp %x min <0.0> max <6.0> : tensor<4xf32>
  %3 = qnn.quantize %2 : tensor<4xf32> -> tensor<4x!qnn.int<8, 0.02, -128>>
  func.return %1, %3 : tensor<4x!qnn.int<8, 0.1, -128>>, tensor<4x!qnn.int<8, 0.02, -128>>
}

// -----

// CHECK-LABEL: @saturation_does_not_clamp
func.func @saturation_does_not_clamp(%x: tensor<4xf32>) -> (tensor<4x!qnn.int<8, 0.1, -127>>, tensor<4x!qnn.int<8, 0.1, -128>>) {
  // CHECK-NEXT: qnn.relu
  // CHECK-NEXT: qnn.quantize
  // CHECK-NEXT: qnn.clamp
  // CHECK-NEXT: qnn.quantize
  %0 = qnn.relu %x : tensor<4xf32>
  %1 = qnn.quantize %0 : tensor<4xf32> -> tensor<4x!qnn.int<8, 0.1, -127>>
  %2 = qnn.clamp %x min <0.0> max <6.0> : tensor<4xf32>
  %3 = qnn.quantize %2 : tensor<4xf32> -> tensor<4x!qnn.int<8, 0.1, -128>>
  func.return %1, %3 : tensor<4x!qnn.int<8, 0.1, -127>>, tensor<4x!qnn.int<8, 0.1, -128>>
}

// -----

// CHECK-LABEL: @repeated_clamps
func.func @repeated_clamps(%x: tensor<4xf32>) -> (tensor<4xf32>, tensor<4xf32>) {
  // CHECK-NEXT: %0 = qnn.relu %x
  // CHECK-NEXT: %1 = qnn.clamp %x min <0.0> max <6.0>
  // CHECK-NEXT: func.return %0, %1
  %0 = qnn.relu %x : tensor<4xf32>
  %1 = qnn.relu %0 : tensor<4xf32>
  %2 = qnn.clamp %x min <0.0> max <6.0> : tensor<4xf32>
  %3 = qnn.relu %2 : tensor<4xf32>
  %4 = qnn.clamp %3 min <-1.0> max <6.0> : tensor<4xf32>
  func.return %1, %4 : tensor<4xf32>, tensor<4xf32>
}

// -----

// CHECK-LABEL: @pad_into_conv
func.func @pad_into_conv(%x: tensor<1x2x8x8x!qnn.int<8, 0.1, 5>>, %w: tensor<6x2x3x3xi8>, %s: tensor<6xf32>) -> tensor<1x6x11x15xf32> {
  // CHECK-NEXT: %0 = qnn.conv2d %x, %w, %s padding <2, 4, 3, 5>
  // CHECK-NEXT: func.return
  %0 = qnn.pad %x by <0, 0, 0, 0, 1, 2, 3, 4> : tensor<1x2x8x8x!qnn.int<8, 0.1, 5>> -> tensor<1x2x11x15x!qnn.int<8, 0.1, 5>>
  %1 = qnn.conv2d %0, %w, %s padding <1, 1, 1, 1> : (tensor<1x2x11x15x!qnn.int<8, 0.1, 5>>, tensor<6x2x3x3xi8>, tensor<6xf32>) -> tensor<1x6x11x15xf32>
  func.return %1 : tensor<1x6x11x15xf32>
}

// -----

// CHECK-LABEL: @pad_of_another_value
func.func @pad_of_another_value(%x: tensor<1x2x8x8x!qnn.int<8, 0.5, 5>>, %w: tensor<6x2x3x3xi8>, %s: tensor<6xf32>) -> tensor<1x6x8x8xf32> {
  // CHECK-NEXT: qnn.pad
  // CHECK-NEXT: qnn.conv2d
  %0 = qnn.pad %x by <0, 0, 0, 0, 1, 1, 1, 1> value <1.0> : tensor<1x2x8x8x!qnn.int<8, 0.5, 5>> -> tensor<1x2x10x10x!qnn.int<8, 0.5, 5>>
  %1 = qnn.conv2d %0, %w, %s : (tensor<1x2x10x10x!qnn.int<8, 0.5, 5>>, tensor<6x2x3x3xi8>, tensor<6xf32>) -> tensor<1x6x8x8xf32>
  func.return %1 : tensor<1x6x8x8xf32>
}

// -----

// CHECK-LABEL: @nothing_left
func.func @nothing_left(%x: tensor<4xf32>) -> tensor<4xf32> {
  // CHECK-NEXT: func.return %x
  %0 = qnn.pad %x by <0, 0> : tensor<4xf32> -> tensor<4xf32>
  %1 = qnn.concat %0 axis 0 : (tensor<4xf32>) -> tensor<4xf32>
  %2 = qnn.relu %1 : tensor<4xf32>
  func.return %1 : tensor<4xf32>
}
