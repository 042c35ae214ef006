// RUN: quartic-opt %s -p fold-constants | filecheck %s

// CHECK-LABEL: @chain
func.func @chain(%x: tensor<2xf32>) -> (tensor<2xf32>, tensor<2x1x!qnn.int<8, 0.5, 1>>) {
  // CHECK-NEXT: qnn.constant dense<[5.000000e+00, 7.000000e+00]> : tensor<2xf32> : tensor<2xf32>
  // CHECK-NEXT: qnn.constant dense<{{\[\[}}11], [15]]> : tensor<2x1xi8> : tensor<2x1x!qnn.int<8, 0.5, 1>>
  // CHECK-NEXT: qnn.add %x
  // CHECK-NEXT: func.return
  %0 = qnn.constant dense<[2.0, 3.0]> : tensor<2xf32> : tensor<2xf32>
  %1 = qnn.constant dense<2.0> : tensor<f32> : tensor<f32>
  %2 = qnn.constant dense<1.0> : tensor<f32> : tensor<f32>
  %3 = qnn.mul %0, %1 : (tensor<2xf32>, tensor<f32>) -> tensor<2xf32>
  %4 = qnn.add %3, %2 : (tensor<2xf32>, tensor<f32>) -> tensor<2xf32>
  %5 = qnn.quantize %4 : tensor<2xf32> -> tensor<2x!qnn.int<8, 0.5, 1>>
  %6 = qnn.reshape %5 : tensor<2x!qnn.int<8, 0.5, 1>> -> tensor<2x1x!qnn.int<8, 0.5, 1>>
  %7 = qnn.add %x, %4 : (tensor<2xf32>, tensor<2xf32>) -> tensor<2xf32>
  func.return %7, %6 : tensor<2xf32>, tensor<2x1x!qnn.int<8, 0.5, 1>>
}

// CHECK-LABEL: @scalar
func.func @scalar() -> tensor<f32> {
  // CHECK-NEXT: qnn.constant dense<5.000000e+00> : tensor<f32> : tensor<f32>
  // CHECK-NEXT: func.return
  %0 = qnn.constant dense<2.0> : tensor<f32> : tensor<f32>
  %1 = qnn.constant dense<3.0> : tensor<f32> : tensor<f32>
  %2 = qnn.add %0, %1 : (tensor<f32>, tensor<f32>) -> tensor<f32>
  func.return %2 : tensor<f32>
}
