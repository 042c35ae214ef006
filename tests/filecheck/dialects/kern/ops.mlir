// RUN: ROUNDTRIP

// CHECK-LABEL: @kernel
func.func @kernel(%x: tensor<1x4x8x8x!qnn.int<8, 0.1, -3>>, %w: tensor<6x4x3x3xi8>, %s: tensor<6xf32>) {
  // CHECK-NEXT: %0 = kern.kernel "conv" (%a = %x, %b = %w, %c = %s) : (tensor<1x4x8x8x!qnn.int<8, 0.1, -3>>, tensor<6x4x3x3xi8>, tensor<6xf32>) -> tensor<1x6x3x3x!qnn.int<8, 0.5, 0>> {
  // CHECK-NEXT:   %1 = qnn.conv2d %a, %b, %c :
  // CHECK-NEXT:   %2 = qnn.quantize %1 :
  // CHECK-NEXT:   %3 = qnn.max_pool2d %2 kernel <2, 2> strides <2, 2> :
  // CHECK-NEXT:   kern.yield %3 : tensor<1x6x3x3x!qnn.int<8, 0.5, 0>>
  // CHECK-NEXT: }
  %0 = kern.kernel "conv" (%a = %x, %b = %w, %c = %s) : (tensor<1x4x8x8x!qnn.int<8, 0.1, -3>>, tensor<6x4x3x3xi8>, tensor<6xf32>) -> tensor<1x6x3x3x!qnn.int<8, 0.5, 0>> {
    %1 = qnn.conv2d %a, %b, %c : (tensor<1x4x8x8x!qnn.int<8, 0.1, -3>>, tensor<6x4x3x3xi8>, tensor<6xf32>) -> tensor<1x6x6x6xf32>
    %2 = qnn.quantize %1 : tensor<1x6x6x6xf32> -> tensor<1x6x6x6x!qnn.int<8, 0.5, 0>>
    %3 = qnn.max_pool2d %2 kernel <2, 2> strides <2, 2> : tensor<1x6x6x6x!qnn.int<8, 0.5, 0>> -> tensor<1x6x3x3x!qnn.int<8, 0.5, 0>>
    kern.yield %3 : tensor<1x6x3x3x!qnn.int<8, 0.5, 0>>
  }
  func.return
}

// -----

// CHECK-LABEL: @view
func.func @view(%x: tensor<2x3x1x1xf32>) {
  // CHECK-NEXT: %0 = kern.view "flatten" (%a = %x) : (tensor<2x3x1x1xf32>) -> tensor<2x3xf32> {
  // CHECK-NEXT:   %1 = qnn.reshape %a :
  // CHECK-NEXT:   kern.yield %1 : tensor<2x3xf32>
  %0 = kern.view "flatten" (%a = %x) : (tensor<2x3x1x1xf32>) -> tensor<2x3xf32> {
    %1 = qnn.reshape %a : tensor<2x3x1x1xf32> -> tensor<2x3xf32>
    kern.yield %1 : tensor<2x3xf32>
  }
  func.return
}

// -----

// CHECK-LABEL: @concat
func.func @concat(%x: tensor<1x3x2x2xf32>, %y: tensor<1x5x2x2xf32>) {
  // CHECK-NEXT: %0 = kern.concat "cat" %x, %y axis 1 : (tensor<1x3x2x2xf32>, tensor<1x5x2x2xf32>) -> tensor<1x8x2x2xf32>
  %0 = kern.concat "cat" %x, %y axis 1 : (tensor<1x3x2x2xf32>, tensor<1x5x2x2xf32>) -> tensor<1x8x2x2xf32>
  func.return
}
