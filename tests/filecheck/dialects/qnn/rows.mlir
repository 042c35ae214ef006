// RUN: ROUNDTRIP

// CHECK-LABEL: @functions
func.func @functions(%a: tensor<2x3xf32>, %b: tensor<3xf32>) {
  // CHECK-NEXT: %0 = qnn.div %a, %b : (tensor<2x3xf32>, tensor<3xf32>) -> tensor<2x3xf32>
  %0 = qnn.div %a, %b : (tensor<2x3xf32>, tensor<3xf32>) -> tensor<2x3xf32>
  // CHECK-NEXT: %1 = qnn.minimum %0, %b : (tensor<2x3xf32>, tensor<3xf32>) -> tensor<2x3xf32>
  %1 = qnn.minimum %0, %b : (tensor<2x3xf32>, tensor<3xf32>) -> tensor<2x3xf32>
  // CHECK-NEXT: %2 = qnn.maximum %1, %b : (tensor<2x3xf32>, tensor<3xf32>) -> tensor<2x3xf32>
  %2 = qnn.maximum %1, %b : (tensor<2x3xf32>, tensor<3xf32>) -> tensor<2x3xf32>
  // CHECK-NEXT: %3 = qnn.ge %2, %b : (tensor<2x3xf32>, tensor<3xf32>) -> tensor<2x3xf32>
  %3 = qnn.ge %2, %b : (tensor<2x3xf32>, tensor<3xf32>) -> tensor<2x3xf32>
  // CHECK-NEXT: %4 = qnn.gt %2, %b : (tensor<2x3xf32>, tensor<3xf32>) -> tensor<2x3xf32>
  %4 = qnn.gt %2, %b : (tensor<2x3xf32>, tensor<3xf32>) -> tensor<2x3xf32>
  // CHECK-NEXT: %5 = qnn.eq %2, %b : (tensor<2x3xf32>, tensor<3xf32>) -> tensor<2x3xf32>
  %5 = qnn.eq %2, %b : (tensor<2x3xf32>, tensor<3xf32>) -> tensor<2x3xf32>
  // CHECK-NEXT: %6 = qnn.select %3, %4, %b : (tensor<2x3xf32>, tensor<2x3xf32>, tensor<3xf32>) -> tensor<2x3xf32>
  %6 = qnn.select %3, %4, %b : (tensor<2x3xf32>, tensor<2x3xf32>, tensor<3xf32>) -> tensor<2x3xf32>
  // CHECK-NEXT: %7 = qnn.exp %6 : tensor<2x3xf32>
  %7 = qnn.exp %6 : tensor<2x3xf32>
  // CHECK-NEXT: %8 = qnn.log %7 : tensor<2x3xf32>
  %8 = qnn.log %7 : tensor<2x3xf32>
  // CHECK-NEXT: %9 = qnn.sqrt %8 : tensor<2x3xf32>
  %9 = qnn.sqrt %8 : tensor<2x3xf32>
  // CHECK-NEXT: %10 = qnn.rsqrt %9 : tensor<2x3xf32>
  %10 = qnn.rsqrt %9 : tensor<2x3xf32>
  // CHECK-NEXT: %11 = qnn.reciprocal %10 : tensor<2x3xf32>
  %11 = qnn.reciprocal %10 : tensor<2x3xf32>
  // CHECK-NEXT: %12 = qnn.abs %11 : tensor<2x3xf32>
  %12 = qnn.abs %11 : tensor<2x3xf32>
  // CHECK-NEXT: %13 = qnn.floor %12 : tensor<2x3xf32>
  %13 = qnn.floor %12 : tensor<2x3xf32>
  // CHECK-NEXT: %14 = qnn.erf %13 : tensor<2x3xf32>
  %14 = qnn.erf %13 : tensor<2x3xf32>
  func.return
}

// -----

// CHECK-LABEL: @rows
func.func @rows(%a: tensor<2x3xf32>, %q: tensor<2x3x!qnn.int<16, 0.1, 5>>, %v: tensor<3xf32>) {
  // CHECK-NEXT: %0 = qnn.softmax %a axis 1 : tensor<2x3xf32> -> tensor<2x3xf32>
  %0 = qnn.softmax %a axis 1 : tensor<2x3xf32> -> tensor<2x3xf32>
  // CHECK-NEXT: %1 = qnn.layer_norm %q gamma %v : tensor<3xf32> beta %v : tensor<3xf32> eps <1.0e-06> : tensor<2x3x!qnn.int<16, 0.1, 5>> -> tensor<2x3xf32>
  %1 = qnn.layer_norm %q gamma %v : tensor<3xf32> beta %v : tensor<3xf32> eps <1.0e-06> : tensor<2x3x!qnn.int<16, 0.1, 5>> -> tensor<2x3xf32>
  // CHECK-NEXT: %2 = qnn.layer_norm %a eps <1.0e-06> : tensor<2x3xf32> -> tensor<2x3xf32>
  %2 = qnn.layer_norm %a eps <1.0e-06> : tensor<2x3xf32> -> tensor<2x3xf32>
  // CHECK-NEXT: %3 = qnn.rms_norm %q, %v eps <1.0e-06> : (tensor<2x3x!qnn.int<16, 0.1, 5>>, tensor<3xf32>) -> tensor<2x3xf32>
  %3 = qnn.rms_norm %q, %v eps <1.0e-06> : (tensor<2x3x!qnn.int<16, 0.1, 5>>, tensor<3xf32>) -> tensor<2x3xf32>
  // CHECK-NEXT: %4 = qnn.reduce "sum" %q axis 1 : tensor<2x3x!qnn.int<16, 0.1, 5>> -> tensor<2xf32>
  %4 = qnn.reduce "sum" %q axis 1 : tensor<2x3x!qnn.int<16, 0.1, 5>> -> tensor<2xf32>
  // CHECK-NEXT: %5 = qnn.reduce "max" %q axis 0 keepdim : tensor<2x3x!qnn.int<16, 0.1, 5>> -> tensor<1x3x!qnn.int<16, 0.1, 5>>
  %5 = qnn.reduce "max" %q axis 0 keepdim : tensor<2x3x!qnn.int<16, 0.1, 5>> -> tensor<1x3x!qnn.int<16, 0.1, 5>>
  // CHECK-NEXT: %6 = qnn.reduce "argmax" %a axis 1 : tensor<2x3xf32> -> tensor<2xi32>
  %6 = qnn.reduce "argmax" %a axis 1 : tensor<2x3xf32> -> tensor<2xi32>
  func.return
}

// -----

// CHECK-LABEL: @resize
func.func @resize(%a: tensor<1x2x3x4xf32>, %q: tensor<1x2x3x4x!qnn.int<4, 0.1, 0>>) {
  // CHECK-NEXT: %0 = qnn.resize2d "bilinear" %a num <2, 3> den <5, 7> phase <0, 0> : tensor<1x2x3x4xf32> -> tensor<1x2x6x8xf32>
  %0 = qnn.resize2d "bilinear" %a num <2, 3> den <5, 7> phase <0, 0> : tensor<1x2x3x4xf32> -> tensor<1x2x6x8xf32>
  // CHECK-NEXT: %1 = qnn.resize2d "nearest" %q num <3, 4> den <6, 8> phase <0, 0> : tensor<1x2x3x4x!qnn.int<4, 0.1, 0>> -> tensor<1x2x6x8x!qnn.int<4, 0.1, 0>>
  %1 = qnn.resize2d "nearest" %q num <3, 4> den <6, 8> phase <0, 0> : tensor<1x2x3x4x!qnn.int<4, 0.1, 0>> -> tensor<1x2x6x8x!qnn.int<4, 0.1, 0>>
  func.return
}

// -----

// CHECK-LABEL: @widths
func.func @widths(%x: tensor<2x4x!qnn.int<4, 0.1, 0>>, %w: tensor<6x4xi4>, %s: tensor<6xf32>, %f: tensor<2x4xf32>, %g: tensor<6x4xf32>) {
  // CHECK-NEXT: %0 = qnn.linear %x, %w, %s weight_zeros <1, 2, 3, 4, 5, 6> : (tensor<2x4x!qnn.int<4, 0.1, 0>>, tensor<6x4xi4>, tensor<6xf32>) -> tensor<2x6xf32>
  %0 = qnn.linear %x, %w, %s weight_zeros <1, 2, 3, 4, 5, 6> : (tensor<2x4x!qnn.int<4, 0.1, 0>>, tensor<6x4xi4>, tensor<6xf32>) -> tensor<2x6xf32>
  // CHECK-NEXT: %1 = qnn.linear %f, %g, %s : (tensor<2x4xf32>, tensor<6x4xf32>, tensor<6xf32>) -> tensor<2x6xf32>
  %1 = qnn.linear %f, %g, %s : (tensor<2x4xf32>, tensor<6x4xf32>, tensor<6xf32>) -> tensor<2x6xf32>
  // CHECK-NEXT: %2 = qnn.matmul %x, %x transpose_b : (tensor<2x4x!qnn.int<4, 0.1, 0>>, tensor<2x4x!qnn.int<4, 0.1, 0>>) -> tensor<2x2xf32>
  %2 = qnn.matmul %x, %x transpose_b : (tensor<2x4x!qnn.int<4, 0.1, 0>>, tensor<2x4x!qnn.int<4, 0.1, 0>>) -> tensor<2x2xf32>
  // CHECK-NEXT: %3 = qnn.constant dense<[1, -8]> : tensor<2xi8> : tensor<2xi4>
  %3 = qnn.constant dense<[1, -8]> : tensor<2xi8> : tensor<2xi4>
  func.return
}
