// RUN: ROUNDTRIP

// CHECK-LABEL: @binary
func.func @binary(%a: tensor<2x3x4x4xf32>, %b: tensor<3x1x1xf32>, %c: tensor<f32>) {
  // CHECK-NEXT: %0 = qnn.add %a, %b : (tensor<2x3x4x4xf32>, tensor<3x1x1xf32>) -> tensor<2x3x4x4xf32>
  %0 = qnn.add %a, %b : (tensor<2x3x4x4xf32>, tensor<3x1x1xf32>) -> tensor<2x3x4x4xf32>
  // CHECK-NEXT: %1 = qnn.sub %b, %a : (tensor<3x1x1xf32>, tensor<2x3x4x4xf32>) -> tensor<2x3x4x4xf32>
  %1 = qnn.sub %b, %a : (tensor<3x1x1xf32>, tensor<2x3x4x4xf32>) -> tensor<2x3x4x4xf32>
  // CHECK-NEXT: %2 = qnn.mul %a, %c : (tensor<2x3x4x4xf32>, tensor<f32>) -> tensor<2x3x4x4xf32>
  %2 = qnn.mul %a, %c : (tensor<2x3x4x4xf32>, tensor<f32>) -> tensor<2x3x4x4xf32>
  func.return
}

// -----

// CHECK-LABEL: @unary
func.func @unary(%a: tensor<2x3xf32>) {
  // CHECK-NEXT: %0 = qnn.relu %a : tensor<2x3xf32>
  %0 = qnn.relu %a : tensor<2x3xf32>
  // CHECK-NEXT: %1 = qnn.hardswish %0 : tensor<2x3xf32>
  %1 = qnn.hardswish %0 : tensor<2x3xf32>
  // CHECK-NEXT: %2 = qnn.hardsigmoid %1 : tensor<2x3xf32>
  %2 = qnn.hardsigmoid %1 : tensor<2x3xf32>
  // CHECK-NEXT: %3 = qnn.sigmoid %2 : tensor<2x3xf32>
  %3 = qnn.sigmoid %2 : tensor<2x3xf32>
  // CHECK-NEXT: %4 = qnn.tanh %3 : tensor<2x3xf32>
  %4 = qnn.tanh %3 : tensor<2x3xf32>
  // CHECK-NEXT: %5 = qnn.clamp %4 min <-0.0> max <1.0e-05> : tensor<2x3xf32>
  %5 = qnn.clamp %4 min <-0.0> max <1.0e-05> : tensor<2x3xf32>
  // CHECK-NEXT: %6 = qnn.clamp %5 min <-inf> max <inf> : tensor<2x3xf32>
  %6 = qnn.clamp %5 min <-inf> max <inf> : tensor<2x3xf32>
  func.return
}

// -----

// CHECK-LABEL: @quantize
func.func @quantize(%a: tensor<2x3xf32>) {
  // CHECK-NEXT: %0 = qnn.quantize %a : tensor<2x3xf32> -> tensor<2x3x!qnn.int<8, 0.00784313725490196, -128>>
  %0 = qnn.quantize %a : tensor<2x3xf32> -> tensor<2x3x!qnn.int<8, 0.00784313725490196, -128>>
  // CHECK-NEXT: %1 = qnn.dequantize %0 : tensor<2x3x!qnn.int<8, 0.00784313725490196, -128>> -> tensor<2x3xf32>
  %1 = qnn.dequantize %0 : tensor<2x3x!qnn.int<8, 0.00784313725490196, -128>> -> tensor<2x3xf32>
  // CHECK-NEXT: %2 = qnn.quantize %a range <-127, 127> : tensor<2x3xf32> -> tensor<2x3x!qnn.int<8, 5.0e-324, 0>>
  %2 = qnn.quantize %a range <-127, 127> : tensor<2x3xf32> -> tensor<2x3x!qnn.int<8, 5.0e-324, 0>>
  // CHECK-NEXT: %3 = qnn.quantize %a thresholds [#qnn.number<-7.5>, #qnn.number<-6.5>, #qnn.number<-5.5>, #qnn.number<-4.5>, #qnn.number<-3.5>, #qnn.number<-2.5>, #qnn.number<-1.5>, #qnn.number<-0.5>, #qnn.number<0.5>, #qnn.number<1.5>, #qnn.number<2.5>, #qnn.number<3.5>, #qnn.number<4.5>, #qnn.number<5.5>, #qnn.number<6.5>] : tensor<2x3xf32> -> tensor<2x3x!qnn.int<4, 0.5, 0, [-8, -7, -6, -5, -4, -3, -2, -1, 0, 1, 2, 3, 4, 5, 6, 7]>>
  %3 = qnn.quantize %a thresholds [#qnn.number<-7.5>, #qnn.number<-6.5>, #qnn.number<-5.5>, #qnn.number<-4.5>, #qnn.number<-3.5>, #qnn.number<-2.5>, #qnn.number<-1.5>, #qnn.number<-0.5>, #qnn.number<0.5>, #qnn.number<1.5>, #qnn.number<2.5>, #qnn.number<3.5>, #qnn.number<4.5>, #qnn.number<5.5>, #qnn.number<6.5>] : tensor<2x3xf32> -> tensor<2x3x!qnn.int<4, 0.5, 0, [-8, -7, -6, -5, -4, -3, -2, -1, 0, 1, 2, 3, 4, 5, 6, 7]>>
  func.return
}

// -----

// CHECK-LABEL: @constant
func.func @constant() {
  // CHECK-NEXT: %0 = qnn.constant dense<[1, -2]> : tensor<2xi8> : tensor<2xi8>
  %0 = qnn.constant dense<[1, -2]> : tensor<2xi8> : tensor<2xi8>
  // CHECK-NEXT: %1 = qnn.constant dense<[1, -2]> : tensor<2xi8> : tensor<2x!qnn.int<8, 0.5, 1>>
  %1 = qnn.constant dense<[1, -2]> : tensor<2xi8> : tensor<2x!qnn.int<8, 0.5, 1>>
  // CHECK-NEXT: %2 = qnn.constant dense<1.000000e-01> : tensor<f32> : tensor<f32>
  %2 = qnn.constant dense<0.1> : tensor<f32> : tensor<f32>
  func.return
}
